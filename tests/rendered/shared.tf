# Cluster "test", written by bilbo 0.1.0.

terraform {
  required_version = ">= 1.10"

  backend "s3" {
    bucket       = "team-state"
    encrypt      = true
    key          = "bilbo/test.tfstate"
    region       = "us-east-1"
    use_lockfile = true
  }

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
  ipv4_cidrs = ["203.0.113.0/24"]

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

module "notebook" {
  source = "./modules/node"

  name               = "test-notebook"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "team"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]

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
  key_name           = "team"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]

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
  key_name           = "team"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]
  root_device        = "/dev/sda1"
  instance_count     = 2

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

output "profile" {
  description = "The profile without what is one machine's own: `bilbo attach` builds on it."

  value = {
    "access"   = { "cidrs" = ["203.0.113.0/24"] }
    "dask"     = { "worker" = { "count" = module.worker.instance_count, "instance" = {} } }
    "instance" = { "ami" = "ami-0f49fa254e1806b72", "ec2type" = "t3.micro", "keyname" = "team", "ssh_user" = "ubuntu", "ssh_port" = 22 }
    "notebook" = { "instance" = {} }
    "region"   = "us-east-1"
  }
}

output "host_side" {
  description = "The sha256 of what a team must have alike and the state must not hold."

  value = {
    "notebook"  = {}
    "scheduler" = { "packages" = "309c492fb4a97a77a3b4176ed8199ea2d44b69f90a4809b020bd89b7f879e136" }
    "worker"    = { "init_cmd" = "ed0f9c833803da71ff33f162ca804b39ceac80be8f0b08fb042671b8ea9df182", "packages" = "309c492fb4a97a77a3b4176ed8199ea2d44b69f90a4809b020bd89b7f879e136" }
  }
}
