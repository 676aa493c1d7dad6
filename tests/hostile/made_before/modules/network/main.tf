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

# The first choice is kept in the state. AWS offers types in more zones as time goes by,
# and a cluster must not be replaced for that.
resource "terraform_data" "availability_zone" {
  input = try(local.zones_with_every_type[0], "")

  lifecycle {
    ignore_changes = [input]

    precondition {
      condition     = length(local.zones_with_every_type) > 0
      error_message = "No Availability Zone of this region offers all of: ${join(", ", var.instance_types)}. Choose other instance types (ec2type), another region, or name a subnet."
    }
  }
}

data "aws_subnet" "this" {
  availability_zone = terraform_data.availability_zone.output
  default_for_az    = true
}
