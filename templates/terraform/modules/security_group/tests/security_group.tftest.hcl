mock_provider "aws" {
  mock_data "aws_subnet" {
    defaults = { vpc_id = "vpc-12345678" }
  }
}

variables {
  cluster    = "team"
  name       = "team-bilbo"
  subnet_id  = "subnet-12345678"
  ports      = { "22" = "SSH", "8888" = "JupyterLab" }
  ipv4_cidrs = ["203.0.113.0/24"]
  tags       = { "bilbo:cluster" = "team" }
}

run "admits_the_networks_asked_for_and_no_others" {
  command = plan

  assert {
    condition = toset(flatten([
      for rule in aws_security_group.this.ingress : rule.cidr_blocks if rule.cidr_blocks != null
    ])) == toset(["203.0.113.0/24"])
    error_message = "Nobody else may be admitted."
  }

  assert {
    condition = toset([
      for rule in aws_security_group.this.ingress : rule.from_port if length(coalesce(rule.cidr_blocks, [])) > 0
    ]) == toset([22, 8888])
    error_message = "Only the ports asked for are opened."
  }

  assert {
    condition = length([
      for rule in aws_security_group.this.ingress : rule if coalesce(rule.self, false) && rule.to_port == 65535
    ]) == 1
    error_message = "Members of the cluster reach each other on every port."
  }
}

run "admits_nobody_without_networks" {
  command = plan

  variables {
    ipv4_cidrs = []
  }

  assert {
    condition = length(flatten([
      for rule in aws_security_group.this.ingress : rule.cidr_blocks if rule.cidr_blocks != null
    ])) == 0
    error_message = "No network was asked for."
  }
}
