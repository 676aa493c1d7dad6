output "subnet_id" {
  description = "Default subnet of the chosen Availability Zone."
  value       = data.aws_subnet.this.id
}
