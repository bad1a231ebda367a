"""The commands of `chainrule jobs`, in the order in which its help lists them."""

from chainrule.client.cli.connecting import Commands
from chainrule.client.cli.exits import COMPARISON_EXIT_CODES_HELP, EXIT_CODES_HELP
from chainrule.client.cli.jobs import control, follow, records, show, submit, verify

app = Commands(help="Submit training runs; follow, steer, compare, change and remove them.", no_args_is_help=True)

app.command("submit", epilog=EXIT_CODES_HELP)(submit.submit)
app.command("ls")(show.list_jobs)
app.command("status")(show.status)
app.command("watch", epilog=EXIT_CODES_HELP)(follow.watch)
app.command("metrics")(follow.metrics)
app.command("logs")(follow.logs)
app.command("events")(records.events)
app.command("checkpoints")(records.checkpoints)
app.command("receipts")(records.receipts)
app.command("verify", epilog=COMPARISON_EXIT_CODES_HELP)(verify.verify)
app.command("pause")(control.pause)
app.command("resume")(control.resume)
app.command("scale")(control.scale)
app.command("cancel")(control.cancel)
app.command("update")(control.update)
app.command("rm")(control.remove)
