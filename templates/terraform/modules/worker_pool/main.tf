resource "aws_launch_template" "this" {
  #checkov:skip=CKV_AWS_88:Without a NAT gateway, which is billed, a public address is the way to packages; the security group admits only the profile's networks.
  name                   = var.name
  image_id               = var.ami
  key_name               = var.key_name
  instance_type          = var.instance_type
  update_default_version = true
  user_data              = var.user_data == null ? null : base64encode(var.user_data)
  tags                   = merge(var.tags, { Name = var.name })

  # What `poweroff` on a machine does.
  instance_initiated_shutdown_behavior = var.shutdown_behavior

  dynamic "iam_instance_profile" {
    for_each = var.iam_instance_profile == null ? [] : [var.iam_instance_profile]

    content {
      name = iam_instance_profile.value
    }
  }

  network_interfaces {
    associate_public_ip_address = true
    delete_on_termination       = true
    security_groups             = var.security_group_ids
  }

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  block_device_mappings {
    device_name = var.root_device

    ebs {
      encrypted             = true
      volume_type           = "gp3"
      volume_size           = var.volume_size
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume", "network-interface"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = var.name })
    }
  }
}

resource "aws_autoscaling_group" "this" {
  name                      = var.name
  min_size                  = var.instance_count
  max_size                  = var.instance_count
  desired_capacity          = var.instance_count
  vpc_zone_identifier       = [var.subnet_id]
  wait_for_capacity_timeout = "5m"
  suspended_processes       = ["AZRebalance", "Launch", "ReplaceUnhealthy"]
  force_delete              = true

  # Who leaves is chosen by unprotecting exactly those; see bilbo's scale.
  protect_from_scale_in = true

  # A change between spot and on demand is one of values, not of shape: running workers stay.
  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = var.on_demand
      on_demand_percentage_above_base_capacity = var.spot ? 0 : 100
      spot_allocation_strategy                 = var.spot ? "price-capacity-optimized" : null
    }

    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.this.id
        version            = aws_launch_template.this.latest_version
      }

      dynamic "override" {
        for_each = var.instance_types

        content {
          instance_type = override.value
        }
      }
    }
  }

  dynamic "tag" {
    for_each = merge(var.tags, { Name = var.name })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  lifecycle {
    # Without this a new AMI or type would change the template and no running worker. All but
    # user_data, which a running worker does not read again.
    replace_triggered_by = [
      aws_launch_template.this.block_device_mappings,
      aws_launch_template.this.iam_instance_profile,
      aws_launch_template.this.image_id,
      aws_launch_template.this.instance_initiated_shutdown_behavior,
      aws_launch_template.this.instance_type,
      aws_launch_template.this.key_name,
      aws_launch_template.this.metadata_options,
      aws_launch_template.this.network_interfaces,
      aws_launch_template.this.tag_specifications,
    ]
    # What AWS would launch when nobody looks is billed and computes nothing. Terraform suspends it
    # once a new group is complete; from then on bilbo resumes and suspends it for each change.
    ignore_changes = [suspended_processes]
  }
}

# Holds running instances only.
data "aws_instances" "this" {
  instance_state_names = ["running"]

  filter {
    name   = "tag:aws:autoscaling:groupName"
    values = [var.name]
  }

  # A group of that name may be another's, and this one's not there yet.
  dynamic "filter" {
    for_each = [for key, owner in var.tags : owner if key == "bilbo:owner"]

    content {
      name   = "tag:bilbo:owner"
      values = [filter.value]
    }
  }

  depends_on = [aws_autoscaling_group.this]
}

# Which workers AWS may take back, and which type each has: asked only where that may differ.
data "aws_instances" "spot" {
  count = length(var.instance_types) > 0 ? 1 : 0

  instance_state_names = ["running"]

  filter {
    name   = "tag:aws:autoscaling:groupName"
    values = [var.name]
  }

  filter {
    name   = "instance-lifecycle"
    values = ["spot"]
  }

  depends_on = [aws_autoscaling_group.this]
}

data "aws_instances" "of_type" {
  for_each = toset(var.instance_types)

  instance_state_names = ["running"]

  filter {
    name   = "tag:aws:autoscaling:groupName"
    values = [var.name]
  }

  filter {
    name   = "instance-type"
    values = [each.value]
  }

  depends_on = [aws_autoscaling_group.this]
}

locals {
  # Instances without an address are left out of the lists of addresses, so that the
  # three align only when they are equally long.
  aligned = (
    length(data.aws_instances.this.ids) == length(data.aws_instances.this.private_ips) &&
    length(data.aws_instances.this.ids) == length(data.aws_instances.this.public_ips)
  )
  spot  = flatten(data.aws_instances.spot[*].ids)
  types = merge([for type, found in data.aws_instances.of_type : { for id in found.ids : id => type }]...)
}
