resource "aws_instance" "this" {
  #checkov:skip=CKV_AWS_88:People reach JupyterLab and the dashboard directly; the security group admits only the profile's networks.
  #checkov:skip=CKV_AWS_126:Detailed monitoring is billed by the instance, and Dask's dashboard shows more.
  #checkov:skip=CKV_AWS_135:Types that can be are EBS optimized by default; on others the setting is refused.
  ami                         = var.ami
  instance_type               = var.instance_type
  key_name                    = var.key_name
  subnet_id                   = var.subnet_id
  vpc_security_group_ids      = var.security_group_ids
  associate_public_ip_address = true
  iam_instance_profile        = var.iam_instance_profile
  user_data                   = var.user_data
  tags                        = merge(var.tags, { Name = var.name })

  # What `poweroff` on the machine does.
  instance_initiated_shutdown_behavior = var.shutdown_behavior

  metadata_options {
    http_endpoint = "enabled"
    http_tokens   = "required"
  }

  root_block_device {
    encrypted   = true
    volume_type = "gp3"
    volume_size = var.volume_size
    tags        = merge(var.tags, { Name = var.name })
  }

  lifecycle {
    # A stopped instance has no public address, which the provider would read as a setting that
    # only another instance can have: hashicorp/terraform-provider-aws issue 33775.
    # User data are read at the first boot alone, and the provider would stop the instance to change
    # them: the SSH stage brings a running one what is in them.
    ignore_changes = [associate_public_ip_address, user_data]
  }
}
