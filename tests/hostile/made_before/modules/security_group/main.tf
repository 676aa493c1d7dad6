data "aws_subnet" "this" {
  id = var.subnet_id
}

resource "aws_security_group" "this" {
  #checkov:skip=CKV_AWS_382:Which packages and data a cluster needs is for whoever works on it to know.
  #checkov:skip=CKV2_AWS_5:It is attached in the modules node and worker_pool, which the scanner does not follow.
  name        = var.name
  description = "bilbo cluster ${var.cluster}"
  vpc_id      = data.aws_subnet.this.vpc_id
  tags        = merge(var.tags, { Name = var.name })

  dynamic "ingress" {
    for_each = var.ports

    content {
      description = ingress.value
      from_port   = tonumber(ingress.key)
      to_port     = tonumber(ingress.key)
      protocol    = "tcp"
      cidr_blocks = var.ipv4_cidrs

      ipv6_cidr_blocks = var.ipv6_cidrs
    }
  }

  ingress {
    description     = "Between the members of the cluster"
    from_port       = 0
    to_port         = 65535
    protocol        = "tcp"
    self            = true
    security_groups = var.peer_security_group_ids
  }

  egress {
    description      = "Packages, data and AWS services"
    from_port        = 0
    to_port          = 0
    protocol         = "-1"
    cidr_blocks      = ["0.0.0.0/0"]
    ipv6_cidr_blocks = ["::/0"]
  }

  timeouts {
    delete = "10m"
  }
}
