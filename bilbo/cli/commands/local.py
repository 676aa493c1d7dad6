"""The commands of the stand-in AWS: `local start|stop|status|fault`."""

from __future__ import annotations

import click

from bilbo.cli.context import Context, pass_context
from bilbo.cli.output import echo, echo_table, print_json


@click.group(short_help="Start and stop the stand-in AWS.")
def local() -> None:
    """The stand-in AWS on this machine: try bilbo without an AWS account.

    `bilbo --local COMMAND` starts it on demand.
    """


@local.command(short_help="Start the stand-in AWS.")
@pass_context
def start(context: Context) -> None:
    """Start the stand-in AWS. It runs until `bilbo local stop`."""
    from bilbo import local as standin

    target = standin.start(context.home)
    echo(f"The stand-in AWS is running at {target.endpoint_url}")


@local.command(short_help="Stop the stand-in AWS.")
@pass_context
def stop(context: Context) -> None:
    """Stop the stand-in AWS and every machine in it."""
    from bilbo import local as standin

    if standin.status(context.home) is None:
        echo("The stand-in AWS is not running.")
        return
    standin.stop(context.home)
    echo("The stand-in AWS has stopped.")


@local.command(short_help="Show the stand-in AWS.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@pass_context
def status(context: Context, as_json: bool) -> None:
    """Show the stand-in AWS: its endpoint and its instances."""
    from dataclasses import asdict

    from bilbo import local as standin

    found = standin.status(context.home)
    if as_json:
        document = {"running": found is not None, **(asdict(found) if found else {})}
        print_json(document)
    elif found is None:
        echo("The stand-in AWS is not running. Start it with: bilbo local start")
    else:
        echo(f"Endpoint: {found.endpoint_url}\nSSH port: {found.ssh_port}\nAMI: {found.ami}")
        echo(f"Key pair: {found.key_name} ({found.private_key})")
        if found.instances:
            rows: list[tuple[str, ...]] = [("INSTANCE", "STATE", "ADDRESS", "NAME")]
            keys = ("instance_id", "state", "public_ip", "name")
            rows += [tuple(str(item.get(key) or "-") for key in keys) for item in found.instances]
            echo()
            echo_table(rows)


@local.command(short_help="Make the stand-in AWS misbehave.")
@click.argument("fault")
@pass_context
def fault(context: Context, fault: str) -> None:
    """Make the stand-in AWS misbehave as AWS does, until `clear`.

    \b
    FAULT is one of:
      capacity=N                           AWS has capacity for N instances
      limit=N                              the account's quota is N instances
      boot=SECONDS                         instances take this long to boot
      ssh=INSTANCE:refuse|silent|reject    SSH on one host misbehaves
      reboot=INSTANCE                      a machine reboots, once
      deny=SERVICE:ACTION                  a permission is missing
      policy=FILE                          only what this IAM policy allows is allowed
      lag=SECONDS                          EC2 does not find what was just made
      throttle=RATE                        EC2 throttles; 1 is as AWS does
      expired                              the credentials have expired
      clear                                no more faults

    \b
    Examples:
      bilbo local fault capacity=2
      bilbo local fault ssh=demo-dask-worker:silent
      bilbo local fault clear
    """
    from bilbo import local as standin

    standin.inject(context.home, fault)
    echo(f"Fault: {fault}")
