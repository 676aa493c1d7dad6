output "instance_count" {
  description = "Number of workers asked for."
  value       = var.instance_count
}

output "nodes" {
  description = "The running workers by instance ID, as the SSH stage needs them; empty while addresses are still missing."
  value = {
    for index, id in local.aligned ? data.aws_instances.this.ids : [] : id => merge({
      instance_id = id
      public_ip   = data.aws_instances.this.public_ips[index]
      private_ip  = data.aws_instances.this.private_ips[index]
      ec2type     = lookup(local.types, id, var.instance_type)
      image_id    = var.ami
      key_name    = var.key_name
    }, length(var.instance_types) > 0 ? { spot = contains(local.spot, id) } : {})
  }
}
