package admin_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/audit"
	"mailcutover/internal/alarm"
	"mailcutover/rollback/mailstore"
	"mailcutover/rollback/msgkey"
	"mailcutover/rollback/verify/desk"
	"mailcutover/routing"
)

// swapped is a platform on which two mailboxes have each other's content, if that is set.
type swapped bool

func (s swapped) Open(_ context.Context, row routing.Row, _ mailstore.Side) (mailstore.Session, error) {
	owner := string(row.Addresses[0])
	if other, ok := map[string]string{"anna@health.example": "ben@health.example", "ben@health.example": "anna@health.example"}[owner]; ok && bool(s) {
		owner = other
	}
	return letters{owner: owner}, nil
}

// letters is a mailbox of ten messages to its owner.
type letters struct {
	mailstore.Session
	owner string
}

func (letters) Folders(context.Context) ([]mailstore.Folder, error) {
	return []mailstore.Folder{{Name: "Private/Doctor", Messages: 10}}, nil
}

func (letters) Select(context.Context, string, bool) (mailstore.Folder, error) {
	return mailstore.Folder{}, nil
}

func (l letters) List(_ context.Context, _, _ uint32, each func(mailstore.Message) error) error {
	old := time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 10 {
		raw := fmt.Sprintf("Message-ID: <%d.%s>\nDate: %s\nFrom: x@out.example\nTo: %[2]s\n\n", i, l.owner, old.Format(time.RFC1123Z))
		if err := each(mailstore.Message{UID: uint32(i + 1), Internal: old, Facts: msgkey.Parse([]byte(raw), "")}); err != nil {
			return err
		}
	}
	return nil
}

func (letters) Close() error { return nil }

// withVerify starts a node that compares mailboxes.
func withVerify(t *testing.T, change ...func(o *admin.Options)) *admintest.Node {
	t.Helper()
	var d *desk.Desk
	n := admintest.Start(t, func(o *admin.Options) {
		tokens := o.Tokens
		withTokens(o)
		roles := o.Tokens
		o.Tokens = func() []admin.Token { return append(tokens(), roles()...) }
		var err error
		d, err = desk.New(desk.Options{
			Node: admintest.Name, Table: o.Table, Replica: o.Replica, Dir: t.TempDir(), Alarms: o.Alarms.(alarm.Sink),
			Settings: func() desk.Settings {
				return desk.Settings{Sample: 5, MaxAge: time.Hour, Mailboxes: func(p routing.PlatformID) mailstore.Store { return swapped(p == admintest.Target) }}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		o.Verify = d
		for _, f := range change {
			f(o)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return n
}

const verifyRows = "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\n" +
	"anna@health.example,6b1f2ad0-3c4e-4f5a-8b6c-000000000001,health,user,,,,,,,\n" +
	"ben@health.example,6b1f2ad0-3c4e-4f5a-8b6c-000000000002,health,user,,,,,,,\n" +
	"carla@health.example,6b1f2ad0-3c4e-4f5a-8b6c-000000000003,health,user,,,,,,,\n"

// Without an audit record nothing is compared, and nothing ends.
func TestVerifyWithoutRecord(t *testing.T) {
	var broken atomic.Bool
	n := withVerify(t, func(o *admin.Options) { o.Audit = brokenAudit{o.Audit.(*audit.Log), &broken} })
	addHealth(t, n)
	want[admin.Imported](t, n, 200, "POST", "/v1/mailboxes/import?reason=r", verifyRows, "Content-Type", "text/csv")
	before := n.Replica.State().Position().Revision
	broken.Store(true)
	want[admin.Problem](t, n, http.StatusServiceUnavailable, "POST", "/v1/verify", `{"agencies":["health"],"reason":"r"}`)
	want[admin.Problem](t, n, http.StatusServiceUnavailable, "POST", "/v1/verify/stop", `{"agency":"health","reason":"r"}`)
	if now := n.Replica.State().Position().Revision; now != before {
		t.Errorf("something happened: revision %d, was %d", now, before)
	}
}

func TestVerify(t *testing.T) {
	n := withVerify(t)
	addHealth(t, n)
	want[admin.Imported](t, n, 200, "POST", "/v1/mailboxes/import?reason=r", verifyRows, "Content-Type", "text/csv")
	begun := want[admin.VerificationBegun](t, n, 201, "POST", "/v1/verify", `{"agencies":["health"],"full":true,"reason":"wave 1"}`)
	if begun.Run == "" || begun.Node != admintest.Name {
		t.Errorf("begun: %+v", begun)
	}
	var v admin.Verification
	for end := time.Now().Add(time.Minute); v.Last == nil; {
		all := want[admin.Verifications](t, n, 200, "GET", "/v1/verify?agency=health", "")
		if v = all.Agencies[0]; time.Now().After(end) {
			t.Fatalf("not compared: %+v", v)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if v.Last.Run != begun.Run || v.Last.Compared != 3 || v.Last.Differ != 2 || v.Open.Crossed != 2 || len(v.Refuses) != 1 || v.Last.Person != "Anna Berg" {
		t.Errorf("compared: %+v, open %+v, refuses %v", v.Last, v.Open, v.Refuses)
	}

	found := want[admin.Findings](t, n, 200, "GET", "/v1/verify/findings?agency=health&state=open&kind=crossed", "").Findings
	if len(found) != 2 || found[0].Address != "anna@health.example" || found[0].OwnerAddress != "ben@health.example" || found[0].Messages != 10 || !slices.Equal(found[0].Folders, []string{"Private/Doctor (10)"}) {
		t.Errorf("findings %+v", found)
	}
	viewer := []string{"Authorization", "Bearer viewer"}
	if all := want[admin.Findings](t, n, 200, "GET", "/v1/verify/findings", "", viewer...).Findings; len(all) != 2 || all[0].Folders != nil {
		t.Errorf("a viewer is told of folders: %+v", all)
	}
	messages := want[admin.FindingMessages](t, n, 200, "GET", "/v1/verify/findings/"+found[0].ID+"/messages", "")
	if len(messages.Messages) != 10 || messages.Messages[0].UID != 1 || messages.Messages[0].Folder != "Private/Doctor" {
		t.Errorf("messages %+v", messages)
	}
	boxes := want[admin.MailboxComparisons](t, n, 200, "GET", "/v1/verify/mailboxes?agency=health&differ=true", "")
	if len(boxes.Mailboxes) != 2 || boxes.Mailboxes[0].Counts.Missing != 10 || len(boxes.Mailboxes[0].Folders) != 1 {
		t.Errorf("mailboxes %+v", boxes)
	}
	if boxes = want[admin.MailboxComparisons](t, n, 200, "GET", "/v1/verify/mailboxes?agency=health&address=carla@health.example", "", viewer...); len(boxes.Mailboxes) != 1 || boxes.Mailboxes[0].Folders != nil {
		t.Errorf("a viewer is told %+v", boxes)
	}

	marked := want[admin.Findings](t, n, 200, "POST", "/v1/verify/findings/mark", `{"findings":["`+found[0].ID+`"],"state":"dismissed","reason":"one mailbox of two names"}`).Findings
	if len(marked) != 1 || marked[0].State != "dismissed" || marked[0].Person != "Anna Berg" {
		t.Errorf("marked %+v", marked)
	}
	if marked = want[admin.Findings](t, n, 200, "POST", "/v1/verify/findings/mark", `{"agency":"health","state":"removed","reason":"moved back"}`).Findings; len(marked) != 1 || marked[0].ID == found[0].ID {
		t.Errorf("all that are in state found: %+v", marked)
	}
	for _, bad := range []struct {
		status       int
		method, path string
		body         string
	}{
		{400, "POST", "/v1/verify", `{"reason":"r"}`},
		{400, "POST", "/v1/verify", `{"agencies":["health"],"all":true,"reason":"r"}`},
		{400, "POST", "/v1/verify", `{"agencies":["health"],"full":true,"sample":3,"reason":"r"}`},
		{404, "POST", "/v1/verify", `{"agencies":["nowhere"],"reason":"r"}`},
		{400, "POST", "/v1/verify/findings/mark", `{"findings":["x"],"state":"confirmed","reason":"r"}`},
		{400, "POST", "/v1/verify/findings/mark", `{"state":"found","reason":"r"}`},
		{404, "POST", "/v1/verify/findings/mark", `{"findings":["x"],"state":"found","reason":"r"}`},
		{404, "GET", "/v1/verify/findings/x/messages", ""},
		{404, "GET", "/v1/verify/findings?agency=nowhere", ""},
		{404, "GET", "/v1/verify/mailboxes?agency=nowhere", ""},
		{409, "POST", "/v1/verify/stop", `{"agency":"tax","reason":"r"}`},
	} {
		if status, _, text := call(t, n, bad.method, bad.path, bad.body); status != bad.status {
			t.Errorf("%s %s %s: %d %s, want %d", bad.method, bad.path, bad.body, status, text, bad.status)
		}
	}

	var entries []string
	for _, e := range records(t, n) {
		if strings.Contains(e.What, "verify") || strings.Contains(e.What, "findings") {
			entries = append(entries, e.What+": "+e.Reason)
		}
	}
	if text := strings.Join(entries, "\n"); !strings.Contains(text, "begin-verify: wave 1") || !strings.Contains(text, "mark-findings: moved back") {
		t.Errorf("audit log:\n%s", text)
	}
}

func TestCrossedMailboxesLock(t *testing.T) {
	n := withVerify(t)
	addHealth(t, n)
	if err := n.Server.LockCrossed(t.Context(), "health", "2 crossed mailboxes"); err != nil {
		t.Fatal(err)
	}
	if err := n.Server.LockCrossed(t.Context(), "health", "again"); err != routing.ErrLocked {
		t.Errorf("a second time: %v", err)
	}
	a, _ := n.Replica.State().Agency("health")
	if !a.Locked || a.Unconfirmed == "" {
		t.Errorf("agency %+v", a)
	}
	list := want[admin.Emergencies](t, n, http.StatusOK, "GET", "/v1/emergencies", "")
	if len(list.Emergencies) != 1 || list.Emergencies[0].Person != admin.Comparison {
		t.Errorf("emergencies %+v", list)
	}
}
