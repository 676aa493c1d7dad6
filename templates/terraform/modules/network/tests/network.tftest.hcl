mock_provider "aws" {}

variables {
  instance_types = ["m5.large", "t3.micro"]
}

run "one_zone_that_offers_every_type" {
  command = apply

  override_data {
    target = data.aws_ec2_instance_type_offerings.this
    values = { locations = ["us-east-1c", "us-east-1b", "us-east-1b", "us-east-1a"] }
  }

  override_data {
    target = data.aws_subnets.default
    values = { ids = ["subnet-22222222", "subnet-11111111"] }
  }

  override_data {
    target = data.aws_subnet.first
    values = { availability_zone = "us-east-1b" }
  }

  override_data {
    target = data.aws_subnet.this
    values = { id = "subnet-12345678" }
  }

  assert {
    condition     = terraform_data.availability_zone.output == "us-east-1b"
    error_message = "The zone must offer every instance type."
  }

  assert {
    condition     = output.subnet_id == "subnet-12345678"
    error_message = "The subnet is the zone's default one."
  }
}

run "the_zone_stays_when_aws_offers_more" {
  command = apply

  override_data {
    target = data.aws_ec2_instance_type_offerings.this
    values = { locations = ["us-east-1a", "us-east-1a", "us-east-1b", "us-east-1b"] }
  }

  override_data {
    target = data.aws_subnets.default
    values = { ids = ["subnet-22222222", "subnet-11111111"] }
  }

  override_data {
    target = data.aws_subnet.first
    values = { availability_zone = "us-east-1a" }
  }

  assert {
    condition     = terraform_data.availability_zone.output == "us-east-1b"
    error_message = "A cluster must not be replaced because AWS offers a type in more zones."
  }
}

run "no_default_subnet" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type_offerings.this
    values = { locations = ["us-east-1a", "us-east-1a"] }
  }

  override_data {
    target = data.aws_subnets.default
    values = { ids = [] }
  }

  expect_failures = [terraform_data.availability_zone]
}

run "no_zone_offers_them_all" {
  command = plan

  override_data {
    target = data.aws_ec2_instance_type_offerings.this
    values = { locations = ["us-east-1a", "us-east-1b"] }
  }

  override_data {
    target = data.aws_subnets.default
    values = { ids = [] }
  }

  expect_failures = [terraform_data.availability_zone]
}
