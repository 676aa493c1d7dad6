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
  region              = "ap-northeast-2"
  max_retries         = 6
  allowed_account_ids = ["123456789012"]
}

module "network" {
  source = "./modules/network"

  instance_types = ["m5.xlarge", "t3.micro"]
}

module "security_group" {
  source = "./modules/security_group"

  cluster                 = "test"
  name                    = "test-bilbo"
  subnet_id               = "subnet-0bc538e0a7c089b4d"
  ipv4_cidrs              = ["192.0.2.1/32", "198.51.100.0/24"]
  peer_security_group_ids = ["sg-0bc538e0a7c089b4d"]

  ports = {
    "2222" = "SSH"
    "8786" = "Dask scheduler"
    "8787" = "Dask dashboard"
    "8888" = "JupyterLab"
  }

  tags = {
    "bilbo:cluster" = "test"
    "team"          = "data $${team}"
    "비용"            = "%%{if}"
  }
}

module "notebook" {
  source = "./modules/node"

  name                 = "test-notebook"
  ami                  = "ami-0f49fa254e1806b72"
  instance_type        = "g4dn.xlarge"
  key_name             = "a \"quoted\" key"
  subnet_id            = "subnet-0bc538e0a7c089b4d"
  security_group_ids   = [module.security_group.id]
  volume_size          = 100
  iam_instance_profile = "s3-reader"

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "notebook"
    "bilbo:role"    = "notebook"
    "team"          = "data $${team}"
    "비용"            = "%%{if}"
  }
}

module "scheduler" {
  source = "./modules/node"

  name                 = "test-dask-scheduler"
  ami                  = "ami-0f49fa254e1806b72"
  instance_type        = "t3.micro"
  key_name             = "a \"quoted\" key"
  subnet_id            = module.network.subnet_id
  security_group_ids   = ["sg-0bc538e0a7c089b4d"]
  volume_size          = 100
  iam_instance_profile = "s3-reader"

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "scheduler"
    "bilbo:role"    = "scheduler"
    "team"          = "data $${team}"
    "비용"            = "%%{if}"
  }
}

module "worker" {
  source = "./modules/worker_pool"

  name                 = "test-dask-worker"
  ami                  = "ami-0f49fa254e1806b72"
  instance_type        = "m5.xlarge"
  key_name             = "a \"quoted\" key"
  subnet_id            = module.network.subnet_id
  security_group_ids   = [module.security_group.id]
  volume_size          = 100
  iam_instance_profile = "s3-reader"
  root_device          = "/dev/sda1"
  instance_count       = 10

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "worker"
    "bilbo:role"    = "worker"
    "team"          = "data $${team}"
    "비용"            = "%%{if}"
  }
}

output "notebook" {
  description = "The notebook, as the SSH stage needs it."
  value       = module.notebook.node
}

output "scheduler" {
  description = "The scheduler, as the SSH stage needs it."
  value       = module.scheduler.node
}

output "workers" {
  description = "The running workers by group and instance ID."
  value       = { "worker" = module.worker.nodes }
}
