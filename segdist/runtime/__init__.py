"""One rank among the others: its context, the rendezvous, the watchdog, collectives, precision, IPEX."""
