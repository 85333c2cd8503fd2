package admin_test

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/audit"
	"mailcutover/internal/alarm"
	"mailcutover/mail"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/recall"
	"mailcutover/rollback/recall/desk"
	"mailcutover/routing"
)

// stubborn is an engine that has one message which it can't bring.
type stubborn struct{ mailstore.Store }

func (stubborn) Mailbox(context.Context, recall.Job) (recall.Result, error) {
	return stubborn{}.result(), nil
}

func (stubborn) Result(routing.MailboxID) (recall.Result, bool, error) {
	return recall.Result{}, false, nil
}

func (stubborn) Accounted(routing.MailboxID) ([]msgkey.Key, error) { return nil, nil }

func (stubborn) Mailboxes() ([]routing.MailboxID, error) { return nil, nil }

func (stubborn) Export(routing.MailboxID) ([]byte, error) { return nil, nil }

func (stubborn) Take(routing.MailboxID, routing.NodeID, []byte) error { return nil }

func (stubborn) Sent(routing.MailboxID, ...mail.TransactionID) error { return nil }

func (stubborn) result() recall.Result {
	return recall.Result{
		Delivered: 3, DeliveredBack: 2, ByUsers: 5, Copied: 7, Passes: 1, Done: true,
		NotBack: []recall.NotBack{{Folder: "Private/Doctor", UID: 7, Size: 12 << 20, Class: recall.ClassTooLarge, Reason: "12582912 bytes, exchange takes 10485760"}},
	}
}

// withRecall starts a node that brings mail over, once run is called.
func withRecall(t *testing.T, change func(*admin.Options)) (n *admintest.Node, run func()) {
	t.Helper()
	var d *desk.Desk
	n = admintest.Start(t, func(o *admin.Options) {
		var err error
		d, err = desk.New(desk.Options{
			Node: admintest.Name, Table: o.Table, Replica: o.Replica, Dir: t.TempDir(), Ledger: o.Ledger, Alarms: o.Alarms.(alarm.Sink),
			Settings: func() desk.Settings {
				return desk.Settings{
					Mailboxes: func(routing.PlatformID) mailstore.Store { return stubborn{} }, Settle: time.Millisecond,
					Limit: func(routing.PlatformID) time.Duration { return time.Millisecond },
				}
			},
			Engine: func(*desk.Run) (desk.Engine, desk.Journals, error) { return stubborn{}, stubborn{}, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Recall = d
		if change != nil {
			change(o)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	begun := false
	t.Cleanup(func() {
		cancel()
		if begun {
			<-done
		}
	})
	return n, func() { begun = true; go func() { d.Run(ctx); close(done) }() }
}

const recallRow = "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\nanna@health.example,6b1f2ad0-3c4e-4f5a-8b6c-000000000001,health,user,,,,,,,\n"

func TestRecall(t *testing.T) {
	n, run := withRecall(t, func(o *admin.Options) {
		tokens := o.Tokens
		withTokens(o)
		roles := o.Tokens
		o.Tokens = func() []admin.Token { return append(tokens(), roles()...) }
	})
	addHealth(t, n)
	want[admin.Imported](t, n, 200, "POST", "/v1/mailboxes/import?reason=r", recallRow, "Content-Type", "text/csv")
	plan := want[admin.RecallPlan](t, n, 200, "POST", "/v1/recalls/plan", `{"agency":"health","reason":"r"}`)
	if plan.Kind != "recall" || plan.From != "ox" || plan.To != "exchange" || len(plan.Text) < 2 {
		t.Errorf("the plan is %+v", plan)
	}
	want[admin.Problem](t, n, 404, "POST", "/v1/recalls", `{"agency":"nowhere","reason":"r"}`)
	r := want[admin.Recall](t, n, 201, "POST", "/v1/recalls", `{"agency":"health","reason":"again"}`)
	if r.State != "running" || r.Person != "Anna Berg" || len(r.Nodes) != 1 || r.Nodes[0].State != "running" {
		t.Errorf("the run is %+v", r)
	}
	want[admin.Problem](t, n, 409, "POST", "/v1/recalls", `{"agency":"health","reason":"again"}`)
	want[admin.Problem](t, n, 409, "POST", "/v1/recalls/"+r.ID+"/accept", `{"reason":"too early"}`)
	run()
	end := time.Now().Add(time.Minute)
	for r.State == "running" && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
		r = want[admin.Recall](t, n, 200, "GET", "/v1/recalls/"+r.ID+"?mailboxes=true", "")
	}
	if r.State != "done" || r.Text != "delivered by us: 2 of 3 back; made by users: 5; copied by the mover and skipped: 7; moved as on the other side: 0; left: 1 messages that are not back" {
		t.Errorf("the run ended as %+v", r)
	}
	if len(r.Nodes) != 1 || len(r.Nodes[0].Boxes) != 1 || len(r.Nodes[0].Boxes[0].NotBack) != 1 || r.Nodes[0].Boxes[0].NotBack[0].Folder != "Private/Doctor" {
		t.Fatalf("what isn't back: %+v", r.Nodes)
	}
	// Users name folders: who only reads isn't told.
	for _, path := range []string{"/v1/recalls/" + r.ID + "?mailboxes=true", "/v1/recalls/" + r.ID + "/share?mailboxes=true"} {
		_, _, text := call(t, n, "GET", path, "", "Authorization", "Bearer viewer")
		if !strings.Contains(text, "too-large") || strings.Contains(text, "Doctor") {
			t.Errorf("a viewer is told %s", text)
		}
	}
	want[admin.Problem](t, n, 409, "POST", "/v1/recalls/"+r.ID+"/end", `{"reason":"too late"}`)
	r = want[admin.Recall](t, n, 200, "POST", "/v1/recalls/"+r.ID+"/accept", `{"reason":"fetched by hand"}`)
	if r.Accepted == nil || r.Accepted.Reason != "fetched by hand" {
		t.Errorf("accepted: %+v", r.Accepted)
	}
	all := want[admin.Recalls](t, n, 200, "GET", "/v1/recalls?agency=health", "")
	if len(all.Recalls) != 1 || all.Recalls[0].Totals.NotBack != 1 || len(want[admin.Recalls](t, n, 200, "GET", "/v1/recalls?agency=tax", "").Recalls) != 0 {
		t.Errorf("the list is %+v", all)
	}
	found := false
	for _, one := range records(t, n) {
		found = found || one.What == "accept-recall" && strings.Contains(one.Subject, r.ID)
	}
	if !found {
		t.Errorf("no audit record names the acceptance: %+v", records(t, n))
	}
}

// Without an audit record nothing begins and nothing ends.
func TestRecallWithoutRecord(t *testing.T) {
	var broken atomic.Bool
	n, _ := withRecall(t, func(o *admin.Options) { o.Audit = brokenAudit{o.Audit.(*audit.Log), &broken} })
	addHealth(t, n)
	r := want[admin.Recall](t, n, 201, "POST", "/v1/recalls", `{"agency":"health","reason":"r"}`)
	before := n.Replica.State().Position().Revision
	broken.Store(true)
	for _, act := range []string{"end", "copies"} {
		want[admin.Problem](t, n, http.StatusServiceUnavailable, "POST", "/v1/recalls/"+r.ID+"/"+act, `{"reason":"r"}`)
	}
	if now := n.Replica.State().Position().Revision; now != before {
		t.Errorf("something happened: revision %d, was %d", now, before)
	}
}

// The way back isn't ended while something of it is open.
func TestFinaliseWaits(t *testing.T) {
	n, run := withRecall(t, nil)
	addHealth(t, n)
	a := armed(t, n, "health")
	op := want[admin.Operation](t, n, 202, "POST", "/v1/agencies/health/cutover", `{"reason":"r","expected_epoch":"`+a.Epoch+`"}`)
	ended(t, n, op.ID)
	if a = want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); a.Phase != "target" || !a.Open {
		t.Fatalf("after the cutover: %+v", a)
	}
	end := time.Now().Add(time.Minute)
	propose := `{"kind":"finalise","agency":"health","expected_epoch":"` + a.Epoch + `","reason":"r"}`
	r := want[admin.Recall](t, n, 201, "POST", "/v1/recalls", `{"agency":"health","reason":"r"}`)
	if p := want[admin.Problem](t, n, 409, "POST", "/v1/proposals", propose); !strings.Contains(p.Detail, r.ID) {
		t.Errorf("refused with %+v", p)
	}
	run()
	for r.State == "running" && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
		r = want[admin.Recall](t, n, 200, "GET", "/v1/recalls/"+r.ID, "")
	}
	want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", propose)
}
