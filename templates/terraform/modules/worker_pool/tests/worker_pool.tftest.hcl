mock_provider "aws" {
  mock_resource "aws_launch_template" {
    defaults = { latest_version = 1, id = "lt-0123456789abcdef0" }
  }
}

variables {
  name               = "team-dask-worker"
  ami                = "ami-12345678"
  root_device        = "/dev/xvda"
  instance_type      = "m5.large"
  key_name           = "team"
  subnet_id          = "subnet-12345678"
  security_group_ids = ["sg-12345678"]
  tags               = { "bilbo:cluster" = "team" }
  instance_count     = 3
}

run "is_a_group_of_the_size_asked_for" {
  command = apply

  override_data {
    target = data.aws_instances.this
    values = {
      ids         = ["i-b", "i-a"]
      private_ips = ["10.0.0.2", "10.0.0.1"]
      public_ips  = ["203.0.113.2", "203.0.113.1"]
    }
  }

  assert {
    condition     = aws_autoscaling_group.this.desired_capacity == 3 && aws_autoscaling_group.this.max_size == 3
    error_message = "The group has exactly the size asked for."
  }

  assert {
    condition     = aws_autoscaling_group.this.protect_from_scale_in
    error_message = "bilbo chooses who leaves, not AWS."
  }

  assert {
    condition     = length(setsubtract(["AZRebalance", "Launch", "ReplaceUnhealthy"], aws_autoscaling_group.this.suspended_processes)) == 0
    error_message = "AWS must not launch workers by itself."
  }

  assert {
    condition     = aws_launch_template.this.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 must be required."
  }

  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "The root volume must be encrypted."
  }

  assert {
    condition     = aws_launch_template.this.block_device_mappings[0].device_name == "/dev/xvda"
    error_message = "The root volume is the AMI's."
  }

  assert {
    condition     = output.nodes["i-a"].private_ip == "10.0.0.1"
    error_message = "Ids and addresses belong together."
  }

  assert {
    condition     = output.instance_count == 3
    error_message = "Who attaches the cluster learns how many workers were asked for."
  }
}

run "no_nodes_while_an_address_is_missing" {
  command = apply

  override_data {
    target = data.aws_instances.this
    values = {
      ids         = ["i-a", "i-b"]
      private_ips = ["10.0.0.1", "10.0.0.2"]
      public_ips  = ["203.0.113.2"]
    }
  }

  assert {
    condition     = length(output.nodes) == 0
    error_message = "Addresses must never be given to the wrong instance."
  }
}

run "spot_instances_of_several_types" {
  command = apply

  variables {
    spot           = true
    on_demand      = 1
    instance_types = ["m5.large", "m5a.large"]
  }

  override_data {
    target = data.aws_instances.this
    values = {
      ids         = ["i-a", "i-b"]
      private_ips = ["10.0.0.1", "10.0.0.2"]
      public_ips  = ["203.0.113.1", "203.0.113.2"]
    }
  }

  override_data {
    target = data.aws_instances.spot[0]
    values = { ids = ["i-b"] }
  }

  override_data {
    target = data.aws_instances.of_type["m5.large"]
    values = { ids = ["i-a"] }
  }

  override_data {
    target = data.aws_instances.of_type["m5a.large"]
    values = { ids = ["i-b"] }
  }

  assert {
    condition = (
      aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].on_demand_percentage_above_base_capacity == 0 &&
      aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == 1 &&
      aws_autoscaling_group.this.mixed_instances_policy[0].instances_distribution[0].spot_allocation_strategy == "price-capacity-optimized"
    )
    error_message = "Above the base all workers are spot instances."
  }

  assert {
    condition     = aws_autoscaling_group.this.mixed_instances_policy[0].launch_template[0].override[*].instance_type == tolist(["m5.large", "m5a.large"])
    error_message = "AWS may take every type, preferred ones first."
  }

  assert {
    condition     = output.nodes["i-a"].ec2type == "m5.large" && !output.nodes["i-a"].spot
    error_message = "The base runs on demand."
  }

  assert {
    condition     = output.nodes["i-b"].ec2type == "m5a.large" && output.nodes["i-b"].spot
    error_message = "Each worker has its own type, and says that it is a spot instance."
  }
}

run "poweroff_may_terminate_it" {
  command = plan

  variables {
    user_data         = "#!/bin/sh"
    shutdown_behavior = "terminate"
  }

  assert {
    condition     = aws_launch_template.this.instance_initiated_shutdown_behavior == "terminate"
    error_message = "A worker ends by its own poweroff."
  }

  assert {
    condition     = aws_launch_template.this.user_data == base64encode("#!/bin/sh")
    error_message = "Launch templates hold user data in base64."
  }
}
