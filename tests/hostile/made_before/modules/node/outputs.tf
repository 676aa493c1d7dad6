output "node" {
  description = "The instance, as the SSH stage needs it."
  value = {
    instance_id      = aws_instance.this.id
    state            = aws_instance.this.instance_state
    public_ip        = aws_instance.this.public_ip
    private_ip       = aws_instance.this.private_ip
    private_dns_name = aws_instance.this.private_dns
    ec2type          = var.instance_type
    image_id         = var.ami
    key_name         = var.key_name
  }
}
