# Cluster "test", written by bilbo 0.1.0.

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.70, < 7" # tested: 5.100.0, which new clusters get; 6 stays where it is
    }
  }
}

provider "aws" {
  region      = "us-east-1"
  max_retries = 6
}

module "network" {
  source = "./modules/network"

  instance_types = ["t3.micro"]
}

module "security_group" {
  source = "./modules/security_group"

  cluster    = "test"
  name       = "test-bilbo"
  subnet_id  = module.network.subnet_id
  ipv4_cidrs = ["192.0.2.1/32"]

  ports = {
    "22"   = "SSH"
    "8888" = "JupyterLab"
  }

  tags = {
    "bilbo:cluster" = "test"
  }
}

module "notebook" {
  source = "./modules/node"

  name               = "test-notebook"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "notebook"
    "bilbo:role"    = "notebook"
  }
}

output "notebook" {
  description = "The notebook, as the SSH stage needs it."
  value       = module.notebook.node
}
