package admin_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	gosmtp "github.com/emersion/go-smtp"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/routing"
	"mailcutover/spool"
)

// A message that has left the spool without a platform: who brought it, why it was held, and
// who dropped it and why, is known all the same. No platform had a part in it.
func TestTraceOfWhatWasDropped(t *testing.T) {
	n := admintest.Start(t, nil)
	withDora(t, n)
	id := n.Put(t, "s@out.example", to("dora@health.example", spool.StateHeld))
	dora := ledger.Recipient{Address: "dora@health.example", Agency: "health", Epoch: routing.Epoch{Term: 1, Number: 7}}
	brought := func(id mail.TransactionID, answers ...ledger.Answer) {
		t.Helper()
		ticket, err := n.Ledger.Intend(&ledger.Intent{Transaction: id, From: "s@out.example", Host: "192.0.2.1 (mx.out.example)", Size: 44, Recipients: []ledger.Recipient{dora}, Local: true})
		if err != nil {
			t.Fatal(err)
		}
		n.Ledger.Outcome(ticket, answers...)
	}
	brought(id, ledger.Answer{Result: ledger.ResultAccepted, Text: "held: agency closed"})
	want[admin.SpoolActed](t, n, 200, "POST", "/v1/spool/drop", `{"message":"`+string(id)+`","reason":"spam"}`)
	unseen := mail.NewTransactionID()
	brought(unseen, ledger.Answer{Result: ledger.ResultNotAcknowledged})

	got := want[admin.Traces](t, n, 200, "GET", "/v1/trace?rcpt=dora@health.example", "")
	if len(got.Messages) != 2 || got.Messages[1].Transaction != string(id) || got.Messages[1].Spool != nil || len(got.Messages[1].Twice) != 0 {
		t.Fatalf("%+v", got)
	}
	var lines []string
	for _, e := range got.Messages[1].Events {
		lines = append(lines, strings.Join([]string{e.What, e.Text, e.Answer, e.Host}, " | "))
	}
	if want := []string{
		"accepted | accepted into this node's spool, from 192.0.2.1 (mx.out.example) | held: agency closed | ",
		"dropped | dropped by a person | spam (Anna Berg) | ",
	}; !slices.Equal(lines, want) {
		t.Errorf("%q, want %q", lines, want)
	}
	if twice := got.Messages[0].Twice; !slices.Equal(twice, []string{"dora@health.example"}) {
		t.Errorf("possible duplicates %q", twice)
	}
	list := want[admin.Deliveries](t, n, 200, "GET", "/v1/ledger?agency=health&since="+time.Now().Add(-time.Hour).UTC().Format(time.RFC3339), "")
	if len(list.Deliveries) != 1 || list.Deliveries[0].Transaction != string(unseen) || list.Deliveries[0].Result != "not acknowledged" {
		t.Errorf("%+v", list)
	}
}

// What a sender asked for by RFC 3461 is shown with a message.
func TestSpoolShowsWhatTheSenderAskedFor(t *testing.T) {
	n := admintest.Start(t, nil)
	id := mail.NewTransactionID()
	in, err := n.Spool.Begin(spool.Envelope{Transaction: id, Time: time.Now(), Options: gosmtp.MailOptions{Return: gosmtp.DSNReturnHeaders, EnvelopeID: "QQ314159"}})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Discard()
	asks := to("dora@health.example", spool.StateHeld)
	asks.Options = gosmtp.RcptOptions{
		Notify: []gosmtp.DSNNotify{gosmtp.DSNNotifySuccess, gosmtp.DSNNotifyFailure}, OriginalRecipientType: gosmtp.DSNAddressTypeRFC822, OriginalRecipient: "d@old.example",
	}
	if err := in.Commit(t.Context(), []spool.Recipient{asks, to("emil@health.example", spool.StateHeld)}); err != nil {
		t.Fatal(err)
	}
	m := want[admin.SpoolMessage](t, n, 200, "GET", "/v1/spool/messages/"+string(id), "")
	if m.Return != "HDRS" || m.EnvelopeID != "QQ314159" {
		t.Errorf("%+v", m)
	}
	if r := m.Recipients[0]; !slices.Equal(r.Notify, []string{"SUCCESS", "FAILURE"}) || !strings.EqualFold(r.Original, "rfc822;d@old.example") {
		t.Errorf("%+v", r)
	}
	if r := m.Recipients[1]; r.Notify != nil || r.Original != "" {
		t.Errorf("%+v", r)
	}
}
