# Cluster "before", written by bilbo 0.1.0 from the profile "before.json".

terraform {
  required_version = ">= 1.6"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.70, < 7"
    }
  }
}

provider "aws" {
  region = "us-east-1"
}

module "network" {
  source = "./modules/network"

  instance_types = ["t3.micro"]
}

module "security_group" {
  source = "./modules/security_group"

  cluster    = "before"
  name       = "before-bilbo"
  subnet_id  = module.network.subnet_id
  ipv4_cidrs = ["127.0.0.0/8"]

  ports = {
    "22"   = "SSH"
    "8786" = "Dask scheduler"
    "8787" = "Dask dashboard"
    "8888" = "JupyterLab"
  }

  tags = {
    "bilbo:cluster" = "before"
  }
}

module "notebook" {
  source = "./modules/node"

  name               = "before-notebook"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "local"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]

  tags = {
    "bilbo:cluster" = "before"
    "bilbo:group"   = "notebook"
    "bilbo:role"    = "notebook"
  }
}

module "scheduler" {
  source = "./modules/node"

  name               = "before-dask-scheduler"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "local"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]

  tags = {
    "bilbo:cluster" = "before"
    "bilbo:group"   = "scheduler"
    "bilbo:role"    = "scheduler"
  }
}

module "worker" {
  source = "./modules/worker_pool"

  name               = "before-dask-worker"
  ami                = "ami-0f49fa254e1806b72"
  instance_type      = "t3.micro"
  key_name           = "local"
  subnet_id          = module.network.subnet_id
  security_group_ids = [module.security_group.id]
  instance_count     = 1

  tags = {
    "bilbo:cluster" = "before"
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
