# Packer 1.7 and later takes its builders from plugins: `packer init` of this folder installs the one
# that image.pkr.hcl needs. Packer 1.6 has it built in and does not know the block, so it is not there.
packer {
  required_plugins {
    amazon = {
      version = ">= 1.2.0"
      source  = "github.com/hashicorp/amazon"
    }
  }
}
