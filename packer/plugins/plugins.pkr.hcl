# Since Packer 1.7, builders are plugins: `packer init` in this folder installs the one that
# image.pkr.hcl needs. Packer 1.6 has it built in and rejects this block, so it is in its own folder.
packer {
  required_plugins {
    amazon = {
      version = ">= 1.2.0"
      source  = "github.com/hashicorp/amazon"
    }
  }
}
