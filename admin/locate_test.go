package admin_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/audit"
	"mailcutover/ledger"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/routing"
)

// filed is a platform on which everybody's mail lies in a folder of his own.
type filed struct{ mailstore.Session }

func (filed) Open(context.Context, routing.Row, mailstore.Side) (mailstore.Session, error) {
	return filed{}, nil
}

func (filed) Folders(context.Context) ([]mailstore.Folder, error) {
	return []mailstore.Folder{{Name: "Private/Doctor", Messages: 1}, {Name: "INBOX", Role: mailstore.Inbox}}, nil
}

func (filed) Select(context.Context, string, bool) (mailstore.Folder, error) {
	return mailstore.Folder{}, nil
}

func (filed) Find(_ context.Context, id string) ([]uint32, error) {
	if id == "busy@out.example" {
		return nil, &mailstore.ThrottledError{Err: errors.New("Private/Doctor is busy")}
	}
	if id != "sought@out.example" {
		return nil, nil
	}
	return []uint32{7}, nil
}

func (filed) List(_ context.Context, from, _ uint32, each func(mailstore.Message) error) error {
	return each(mailstore.Message{UID: from, Internal: time.Now(), Flags: []string{`\Seen`}, Facts: msgkey.Facts{MessageID: "<sought@out.example>", Subject: "secret"}})
}

func (filed) ListSince(context.Context, time.Time, func(mailstore.Message) error) error { return nil }

func (filed) Close() error { return nil }

// Where a message lies is for the help desk, the folder's name isn't; and the audit log has
// whose mailbox was looked into, and why, first.
func TestLocate(t *testing.T) {
	var broken atomic.Bool
	var opened atomic.Int32
	n := admintest.Start(t, func(o *admin.Options) {
		o.Audit = brokenAudit{o.Audit.(*audit.Log), &broken}
		tokens := o.Tokens
		withTokens(o)
		roles := o.Tokens
		o.Tokens = func() []admin.Token { return append(roles(), tokens()...) }
		o.Mailboxes = func(id routing.PlatformID) mailstore.Store {
			if id == admintest.Target {
				return nil
			}
			opened.Add(1)
			return filed{}
		}
	})
	withDora(t, n)
	id := mail.NewTransactionID()
	ticket, err := n.Ledger.Intend(&ledger.Intent{
		Transaction: id, From: "s@out.example", Platform: "exchange", Host: "192.0.2.1", Size: 44, MessageID: "sought@out.example",
		Recipients: []ledger.Recipient{{Address: "dora@health.example", Agency: "health"}, {Address: "gone@health.example", Agency: "health"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	delivered := ledger.Answer{Result: ledger.ResultDelivered, Code: 250}
	n.Ledger.Outcome(ticket, delivered, delivered)

	for _, test := range []struct{ role, folder string }{{"viewer", ""}, {"operator", "Private/Doctor"}} {
		for _, named := range []string{`"transaction":"` + string(id) + `"`, `"message_id":"<sought@out.example>"`, `"rcpt":"dora@health.example","message_id":"sought@out.example"`} {
			before := n.Audit.Head().Number
			got := want[admin.Located](t, n, 200, "POST", "/v1/locate", `{"reason":"ticket 4711",`+named+`}`, "Authorization", "Bearer "+test.role)
			if len(got.Mailboxes) != 1 || len(got.Mailboxes[0].Platforms) != 2 {
				t.Fatalf("%+v", got)
			}
			box := got.Mailboxes[0]
			at, other := box.Platforms[0], box.Platforms[1]
			if box.Recipient != "dora@health.example" || box.Agency != "health" || !at.Holds || at.Platform != "exchange" || at.Folders != 2 || other.Holds || !strings.Contains(other.Error, "platforms[].mailboxes") {
				t.Errorf("%+v", box)
			}
			if len(at.Places) != 2 || at.Places[0].Where != "inbox" || at.Places[1].Where != "another folder" || at.Places[1].Folder != test.folder {
				t.Errorf("%s: %+v", test.role, at.Places)
			}
			if !strings.Contains(named, "rcpt") && !slices.ContainsFunc(got.Notes, func(note string) bool { return strings.Contains(note, "gone@health.example is no mailbox") }) {
				t.Errorf("notes %q", got.Notes)
			}
			var log bytes.Buffer
			if head, err := n.Audit.Export(&log); err != nil || head.Number != before+1 {
				t.Errorf("%d records after %d, %v", head.Number, before, err)
			}
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			if last := lines[len(lines)-1]; !strings.Contains(last, "ticket 4711") || !strings.Contains(last, box.Mailbox) || !strings.Contains(last, "locate-message") {
				t.Error(last)
			}
		}
	}
	// What a platform says of a folder is its name too.
	for role, told := range map[string]bool{"viewer": false, "operator": true} {
		got := want[admin.Located](t, n, 200, "POST", "/v1/locate", `{"reason":"r","rcpt":"dora@health.example","message_id":"busy@out.example"}`, "Authorization", "Bearer "+role)
		if failed := got.Mailboxes[0].Platforms[0].Error; strings.Contains(failed, "Doctor") != told || !strings.Contains(failed, "platform asks for time") {
			t.Errorf("%s: %q", role, failed)
		}
	}
	for body, status := range map[string]int{
		`{"message_id":"sought@out.example","reason":" "}`: 400,
		`{"reason":"r"}`: 400,
		fmt.Sprintf(`{"message_id":"x","transaction":%q,"reason":"r"}`, id):                                 400,
		`{"message_id":"other@out.example","reason":"r"}`:                                                   404,
		`{"message_id":"other@out.example","rcpt":"nobody@health.example","reason":"r"}`:                    404,
		`{"message_id":"other@out.example","rcpt":"no address","reason":"r"}`:                               400,
		`{"transaction":"nonsense","reason":"r"}`:                                                           400,
		`{"message_id":"other@out.example","rcpt":"dora@health.example","reason":"nobody has heard of it"}`: 200,
	} {
		if got, _, text := call(t, n, "POST", "/v1/locate", body, "Authorization", "Bearer viewer"); got != status {
			t.Errorf("%s: %d, want %d: %s", body, got, status, text)
		}
	}
	broken.Store(true)
	before := opened.Load()
	if got, _, text := call(t, n, "POST", "/v1/locate", `{"message_id":"sought@out.example","reason":"r"}`, "Authorization", "Bearer viewer"); got != 503 || opened.Load() != before {
		t.Errorf("without a record: %d %s; %d mailboxes opened", got, text, opened.Load()-before)
	}
}
