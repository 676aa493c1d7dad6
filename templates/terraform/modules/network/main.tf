# One Availability Zone for the whole cluster: traffic between zones is billed.

data "aws_ec2_instance_type_offerings" "this" {
  location_type = "availability-zone"

  filter {
    name   = "instance-type"
    values = var.instance_types
  }
}

locals {
  zones = data.aws_ec2_instance_type_offerings.this.locations
  zones_with_every_type = sort([
    for zone in distinct(local.zones) : zone
    if length([for other in local.zones : other if other == zone]) == length(var.instance_types)
  ])
}

# Local Zones, and zones whose default subnet was deleted, offer types too: only a zone with a
# default subnet can take the cluster.
data "aws_subnets" "default" {
  filter {
    name   = "default-for-az"
    values = ["true"]
  }

  filter {
    name   = "availability-zone"
    values = length(local.zones_with_every_type) > 0 ? local.zones_with_every_type : ["none"]
  }
}

data "aws_subnet" "first" {
  count = min(length(data.aws_subnets.default.ids), 1)

  id = sort(data.aws_subnets.default.ids)[0]
}

# The first choice is kept in the state. AWS offers types in more zones as time goes by,
# and a cluster must not be replaced for that.
resource "terraform_data" "availability_zone" {
  input = try(data.aws_subnet.first[0].availability_zone, "")

  lifecycle {
    ignore_changes = [input]

    precondition {
      condition     = length(local.zones_with_every_type) > 0
      error_message = "No Availability Zone of this region offers all of: ${join(", ", var.instance_types)}. Choose other instance types (ec2type), another region, or name a subnet."
    }

    precondition {
      condition     = length(local.zones_with_every_type) == 0 || length(data.aws_subnets.default.ids) > 0
      error_message = "No default VPC of this region has a subnet in a zone that offers all of: ${join(", ", var.instance_types)}. Name a subnet in the profile (instance.subnet), or create a default VPC with: aws ec2 create-default-vpc"
    }
  }
}

data "aws_subnet" "this" {
  availability_zone = terraform_data.availability_zone.output
  default_for_az    = true
}
