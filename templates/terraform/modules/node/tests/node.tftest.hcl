# terraform test: no account and no network, the provider is mocked.

mock_provider "aws" {}

variables {
  name               = "team-notebook"
  ami                = "ami-12345678"
  instance_type      = "m5.large"
  key_name           = "team"
  subnet_id          = "subnet-12345678"
  security_group_ids = ["sg-12345678"]
  tags               = { "bilbo:cluster" = "team" }
}

run "is_safe_by_default" {
  command = plan

  assert {
    condition     = aws_instance.this.metadata_options[0].http_tokens == "required"
    error_message = "IMDSv2 must be required."
  }

  assert {
    condition     = aws_instance.this.root_block_device[0].encrypted
    error_message = "The root volume must be encrypted."
  }

  assert {
    condition     = aws_instance.this.tags == tomap({ "Name" = "team-notebook", "bilbo:cluster" = "team" })
    error_message = "Machines are found by their tags, whatever the state says."
  }
}

run "keeps_the_size_of_the_image" {
  command = apply

  assert {
    condition     = output.node.instance_id == aws_instance.this.id
    error_message = "The SSH stage needs the instance's id."
  }
}

run "takes_a_size" {
  command = plan

  variables {
    volume_size          = 100
    iam_instance_profile = "reader"
  }

  assert {
    condition     = aws_instance.this.root_block_device[0].volume_size == 100
    error_message = "The size of the volume is the one asked for."
  }

  assert {
    condition     = aws_instance.this.iam_instance_profile == "reader"
    error_message = "The instance profile is the one asked for."
  }
}

run "poweroff_stops_it" {
  command = plan

  assert {
    condition     = aws_instance.this.instance_initiated_shutdown_behavior == "stop"
    error_message = "A person's poweroff must not destroy a machine."
  }
}

run "poweroff_may_terminate_it" {
  command = plan

  variables {
    user_data         = "#!/bin/sh"
    shutdown_behavior = "terminate"
  }

  assert {
    condition     = aws_instance.this.instance_initiated_shutdown_behavior == "terminate"
    error_message = "A cluster that is to be destroyed ends its machines by poweroff."
  }
}
