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
    "8786" = "Dask scheduler"
    "8787" = "Dask dashboard"
    "8888" = "JupyterLab"
  }

  tags = {
    "bilbo:cluster" = "test"
  }
}

module "lifetime" {
  source = "./modules/lifetime"

  unreached = 5400
  users     = ["ec2-user", "ubuntu"]
}

module "notebook" {
  source = "./modules/node"

  name               = "test-notebook"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]
  user_data          = module.lifetime.user_data["ec2-user"]
  shutdown_behavior  = "terminate"

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "notebook"
    "bilbo:role"    = "notebook"
  }
}

module "scheduler" {
  source = "./modules/node"

  name               = "test-dask-scheduler"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]
  user_data          = module.lifetime.user_data["ubuntu"]
  shutdown_behavior  = "terminate"

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "scheduler"
    "bilbo:role"    = "scheduler"
  }
}

module "worker" {
  source = "./modules/worker_pool"

  name               = "test-dask-worker"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]
  root_device        = "/dev/sda1"
  instance_count     = 1
  user_data          = module.lifetime.user_data["ubuntu"]
  shutdown_behavior  = "terminate"

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "worker"
    "bilbo:role"    = "worker"
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
