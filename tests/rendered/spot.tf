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

  instance_types = ["m5.xlarge", "m5a.xlarge", "m6i.xlarge"]
}

module "scheduler" {
  source = "./modules/node"

  name               = "test-dask-scheduler"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "m5.xlarge"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = ["sg-0bc538e0a7c089b4d"]

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "scheduler"
    "bilbo:role"    = "scheduler"
  }
}

module "worker_cheap" {
  source = "./modules/worker_pool"

  name               = "test-dask-worker-cheap"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "m5.xlarge"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = ["sg-0bc538e0a7c089b4d"]
  root_device        = "/dev/sda1"
  instance_count     = 4
  spot               = true
  on_demand          = 0
  instance_types     = ["m5.xlarge", "m5a.xlarge", "m6i.xlarge"]

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "cheap"
    "bilbo:role"    = "worker"
  }
}

module "worker_sure" {
  source = "./modules/worker_pool"

  name               = "test-dask-worker-sure"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "m5.xlarge"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = ["sg-0bc538e0a7c089b4d"]
  root_device        = "/dev/sda1"
  instance_count     = 1
  spot               = true
  on_demand          = 0
  instance_types     = ["m5.xlarge"]

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "sure"
    "bilbo:role"    = "worker"
  }
}

module "worker_wide" {
  source = "./modules/worker_pool"

  name               = "test-dask-worker-wide"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "m5.xlarge"
  key_name           = "my-keypair"
  subnet_id          = module.network.subnet_id
  security_group_ids = ["sg-0bc538e0a7c089b4d"]
  root_device        = "/dev/sda1"
  instance_count     = 1
  instance_types     = ["m5.xlarge", "m5a.xlarge"]

  tags = {
    "bilbo:cluster" = "test"
    "bilbo:group"   = "wide"
    "bilbo:role"    = "worker"
  }
}

output "scheduler" {
  description = "The scheduler, as the SSH stage needs it."
  value       = module.scheduler.node
}

output "workers" {
  description = "The running workers by group and instance ID."
  value       = { "cheap" = module.worker_cheap.nodes, "sure" = module.worker_sure.nodes, "wide" = module.worker_wide.nodes }
}
