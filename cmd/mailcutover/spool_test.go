package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"mailcutover/admin/admintest"
	"mailcutover/ledger"
	"mailcutover/ledger/retained"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// spooled puts a message into the spool.
func spooled(ts *testscript.TestScript, _ bool, args []string) {
	state, err := spool.ParseState(args[0])
	ts.Check(err)
	n := ts.Value("node").(*admintest.Node)
	id := n.Put(ts.Value("t").(testing.TB), "anna@out.example", spool.Recipient{
		Address: routing.Address(args[1]), Agency: "health", State: state, Reason: "agency closed",
	})
	ts.Setenv("TRANSACTION", string(id))
}

// copied makes a retained copy of a message for an address.
func copied(ts *testscript.TestScript, _ bool, args []string) {
	n := ts.Value("node").(*admintest.Node)
	id := mail.NewTransactionID()
	in := n.Copies.Begin("health")
	defer in.Discard()
	in.Write([]byte("Received: by mx1\r\nSubject: never shown\r\n\r\nbody\r\n"))
	in.Keep(&retained.Message{Transaction: id, Platform: admintest.Target, From: "anna@out.example", MessageID: "m1@out.example"},
		[]ledger.Recipient{{Address: routing.Address(args[0]), Agency: "health", Mailbox: routing.MailboxID{1}, Epoch: routing.Epoch{Term: 1, Number: 7}}})
	ts.Setenv("TRANSACTION", string(id))
}

// delivered records two handovers of one message: the answer to the first was lost.
func delivered(ts *testscript.TestScript, _ bool, args []string) {
	n := ts.Value("node").(*admintest.Node)
	id := mail.NewTransactionID()
	for _, answer := range []ledger.Answer{{Result: ledger.ResultInDoubt}, {Result: ledger.ResultDelivered, Code: 250, Text: "2.0.0 queued as 4711"}} {
		ticket, err := n.Ledger.Intend(&ledger.Intent{
			Transaction: id, Platform: admintest.Source, Host: "ex1.example.org", From: "anna@out.example", MessageID: "<m1@out.example>", Size: 2048,
			Recipients: []ledger.Recipient{{Address: routing.Address(args[0]), Agency: "health"}},
		})
		ts.Check(err)
		n.Ledger.Outcome(ticket, answer)
	}
	ts.Setenv("TRANSACTION", string(id))
}

// oldSpool makes the spool of a node that ended.
func oldSpool(ts *testscript.TestScript, _ bool, args []string) {
	s, err := spool.Open(spool.Options{Dir: ts.MkAbs(args[0]), Node: args[1]})
	ts.Check(err)
	admintest.PutInto(ts.Value("t").(testing.TB), s, nil, "anna@out.example", spool.Recipient{Address: "dora@health.example", Agency: "health", State: spool.StateHeld})
	ts.Check(s.Close())
}
