package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/audit"
	"mailcutover/internal/durable"
)

// brokenAudit refuses records while it is broken.
type brokenAudit struct {
	*audit.Log
	broken *atomic.Bool
}

func (b brokenAudit) Append(e audit.Entry) (audit.Head, error) {
	if b.broken.Load() {
		return audit.Head{}, audit.ErrUnwritten
	}
	return b.Log.Append(e)
}

// records returns what is in the node's audit log.
func records(t *testing.T, n *admintest.Node) (all []audit.Record) {
	t.Helper()
	var out bytes.Buffer
	if _, err := n.Audit.Export(&out); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		var r audit.Record
		if err := json.Unmarshal([]byte(line[strings.Index(line, " "):]), &r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// storesNothing are calls that only look, though they are posted.
var storesNothing = map[string]bool{"sign-audit": true, "generate-lists": true, "check-list": true, "plan-recall": true, "check-directory": true}

// triedElsewhere are calls that need what another test has, and go the same way: by changeAs,
// whose change is recorded before it is sent, or as an act on an operation, whose runner is
// not called without its record. locate-message is in TestLocate.
var triedElsewhere = []string{
	"arm-agency", "plan-operation", "release-name", "remap-mailboxes", "import-list", "withdraw-list", "abort-operation", "tell-operation", "undo-hook", "attest-node",
	"propose-bootstrap", "approve-bootstrap", "propose-restore", "approve-restore", "begin-recall", "end-recall", "accept-recall", "copy-recall", "take-over-recall", "begin-verify", "stop-verify", "mark-findings",
	"propose-wave", "stop-plan", "start-wave", "pause-wave", "resume-wave", "skip-wave", "end-wave", "answer-wave", "lift-plan", "store-rehearsal", "locate-message", "test-notice",
}

// Every call that changes something writes a record first: without one it changes nothing.
func TestNoEffectWithoutRecord(t *testing.T) {
	var broken atomic.Bool
	var reloads, adoptions atomic.Int32
	n := admintest.Start(t, func(o *admin.Options) {
		o.Audit = brokenAudit{o.Audit.(*audit.Log), &broken}
		o.Reload = func(context.Context) (admin.Reloaded, error) { reloads.Add(1); return admin.Reloaded{}, nil }
		o.AdoptSpool = func(context.Context, string, string) (admin.Adoption, error) {
			adoptions.Add(1)
			return admin.Adoption{}, nil
		}
	})
	addHealth(t, n)
	armed(t, n, "health")
	n.Alarms.Raise("seen", "text")
	locked := want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
	unlock := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", `{"kind":"unlock","agency":"health","expected_epoch":"1.2","reason":"r"}`)
	before := n.Replica.State().Position().Revision
	already := len(records(t, n))

	broken.Store(true)
	epoch := `{"reason":"r","expected_epoch":"1.2"}`
	row := "address,directory_id,agency,kind,aliases,logins,source_address,source_login,target_address,target_login,platform\nanna@health.example,6b1f2ad0-3c4e-4f5a-8b6c-000000000001,health,user,,,,,,,\n"
	tried := map[string]bool{}
	for _, c := range []struct {
		id, path, body string
		header         []string
	}{
		{"add-agency", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","reason":"r"}`, nil},
		{"import-mailboxes", "/v1/mailboxes/import?reason=r", row, []string{"Content-Type", "text/csv"}},
		{"complete-domain", "/v1/domains/health.example/complete", `{"complete":true,"reason":"r"}`, nil},
		{"settle-agency", "/v1/agencies/health/settle", epoch, nil},
		{"lock-agency", "/v1/agencies/health/lock", epoch, nil},
		{"lock-agency-locally", "/v1/agencies/health/lock-local", `{"reason":"r"}`, nil},
		{"cutover", "/v1/agencies/health/cutover", epoch, nil},
		{"rollback", "/v1/agencies/health/rollback", `{"reason":"r","expected_epoch":"1.2","emergency":true}`, nil},
		{"freeze", "/v1/freezes", `{"reason":"r"}`, nil},
		{"lift-freeze", "/v1/freezes/lift", `{"reason":"r"}`, nil},
		{"propose", "/v1/proposals", `{"kind":"unlock","agency":"health","expected_epoch":"1.2","reason":"r"}`, nil},
		{"approve-proposal", "/v1/proposals/" + unlock.ID + "/approve", approved(unlock), asCarla},
		{"withdraw-proposal", "/v1/proposals/" + unlock.ID + "/withdraw", `{"reason":"r"}`, nil},
		{"start-proposal", "/v1/proposals/" + unlock.ID + "/start", `{}`, nil},
		{"confirm-emergency", "/v1/emergencies/" + locked.Emergency + "/confirm", `{"reason":"r"}`, asCarla},
		{"drain-node", "/v1/nodes/alone/drain", `{"drain":true,"reason":"r"}`, nil},
		{"clear-alarm", "/v1/alarms/seen/clear", `{"reason":"r"}`, nil},
		{"reload-config", "/v1/config/reload", `{"reason":"r"}`, nil},
		{"hold-spooled", "/v1/spool/hold", `{"all":true,"reason":"r"}`, nil},
		{"release-spooled", "/v1/spool/release", `{"all":true,"reason":"r"}`, nil},
		{"retry-spooled", "/v1/spool/retry", `{"all":true,"reason":"r"}`, nil},
		{"drop-spooled", "/v1/spool/drop", `{"all":true,"reason":"r"}`, nil},
		{"set-spool-rate", "/v1/spool/rate", `{"platform":"ox","per_second":1,"reason":"r"}`, nil},
		{"resume-spool", "/v1/spool/resume", `{"reason":"r"}`, nil},
		{"close-sessions", "/v1/sessions/close", `{"all":true,"reason":"r"}`, nil},
		{"adopt-spool", "/v1/spool/adopt", `{"directory":"/nowhere","from":"x","reason":"r"}`, nil},
	} {
		tried[c.id] = true
		if p := want[admin.Problem](t, n, http.StatusServiceUnavailable, "POST", c.path, c.body, c.header...); !strings.Contains(p.Detail, "audit record can't be written") {
			t.Errorf("%s: %+v", c.id, p)
		}
	}
	for _, c := range calls(t, n) {
		if c.method == http.MethodPost && !tried[c.id] && !storesNothing[c.id] && !slices.Contains(triedElsewhere, c.id) {
			t.Errorf("%s is not tried", c.id)
		}
	}
	if now := n.Replica.State().Position().Revision; now != before || reloads.Load()+adoptions.Load() != 0 || len(n.Alarms.List()) != 1 || len(records(t, n)) != already {
		t.Errorf("something happened: revision %d, was %d; %d reloads, %d adoptions, alarms %v", now, before, reloads.Load(), adoptions.Load(), n.Alarms.List())
	}
}

// A record says who, by what right, what, why, and from what to what; a failure says of
// which record.
func TestRecords(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	armed(t, n, "health")
	op := want[admin.Operation](t, n, 202, "POST", "/v1/agencies/health/cutover", `{"reason":"wave 3","expected_epoch":"1.1"}`)
	ended(t, n, op.ID)
	want[admin.Problem](t, n, 409, "POST", "/v1/agencies/health/cutover", `{"reason":"again","expected_epoch":"1.4"}`)
	all := records(t, n)
	if len(all) != 5 {
		t.Fatalf("%d records: %+v", len(all), all)
	}
	for i, w := range []struct{ what, subject, reason, epoch, before, after string }{
		{"add-agency", "agency health; domain health.example", "first", "", "", "phase=source"},
		{"arm-agency", "agency health", "soon", "1.1", "leased=settled", "leased=armed"},
		{"cutover", "agency health", "wave 3", "1.1", "phase=source", "platform=ox"},
		{"cutover", "agency health", "again", "1.4", "phase=target", "platform=ox"},
	} {
		r := all[i]
		if r.What != w.what || r.Subject != w.subject || r.Reason != w.reason || r.Epoch != w.epoch || !strings.Contains(r.Before, w.before) || !strings.Contains(r.After, w.after) ||
			r.Person != "Anna Berg" || r.Token != "anna-laptop" || len(r.Roles) != 4 || r.Request == "" || r.Node != admintest.Name {
			t.Errorf("record %d: %+v", i+1, r)
		}
	}
	if r := all[4]; r.Of != 4 || !strings.Contains(r.Error, "in phase target") {
		t.Errorf("failure: %+v", r)
	}
	head := want[admin.AuditHead](t, n, 200, "GET", "/v1/audit/head", "")
	_, h, text := call(t, n, "GET", "/v1/audit/export", "")
	want, err := audit.ParseHead(head.Head)
	if err != nil || head.Number != 5 || h.Get("Mailcutover-Audit-Head") != head.Head {
		t.Errorf("%+v, %v", head, err)
	}
	if _, err := audit.Verify(strings.NewReader(text), want); err != nil {
		t.Error(err)
	}
}

// What closes or frees an agency says from what to what too; so does the note of an emergency.
func TestRecordsOfControl(t *testing.T) {
	n := admintest.Start(t, required)
	addHealth(t, n)
	armed(t, n, "health")
	want[admin.Agency](t, n, 200, "POST", "/v1/agencies/health/settle", `{"reason":"r","expected_epoch":"1.1"}`)
	want[admin.Freezes](t, n, 200, "POST", "/v1/freezes", `{"agency":"health","reason":"holidays"}`)
	want[admin.Freezes](t, n, 200, "POST", "/v1/freezes/lift", `{"agency":"health","reason":"r"}`)
	want[admin.Acted](t, n, 200, "POST", "/v1/agencies/health/lock", `{"reason":"r"}`)
	p := want[admin.Proposal](t, n, 201, "POST", "/v1/proposals", `{"kind":"unlock","agency":"health","expected_epoch":"1.2","reason":"r"}`)
	want[admin.Proposal](t, n, 200, "POST", "/v1/proposals/"+p.ID+"/approve", approved(p), asCarla...)
	want[admin.Started](t, n, 202, "POST", "/v1/proposals/"+p.ID+"/start", `{}`)
	seen := map[string]audit.Record{}
	for _, r := range records(t, n) {
		seen[r.What+" "+r.Subject] = r
		if r.Subject == "" {
			t.Errorf("of nothing: %+v", r)
		}
	}
	for key, w := range map[string][2]string{
		"settle-agency agency health": {"leased=armed", "leased=settled"},
		"freeze agency health":        {"not frozen", "frozen"},
		"lift-freeze agency health":   {"frozen by Anna Berg: holidays", "not frozen"},
		"lock-agency agency health":   {"epoch=1.1", "epoch=1.2 leased=settled locked"},
		"unlock agency health":        {"epoch=1.2 leased=settled locked", "epoch=1.3 leased=settled"},
	} {
		if r, ok := seen[key]; !ok || !strings.Contains(r.Before, w[0]) || !strings.Contains(r.After, w[1]) {
			t.Errorf("%s: from %q to %q", key, r.Before, r.After)
		}
	}
}

// An empty key is none: whoever sends it believes to be safe from acting twice.
func TestIdempotencyKeyEmpty(t *testing.T) {
	n := admintest.Start(t, nil)
	addHealth(t, n)
	for _, key := range []string{" ", strings.Repeat("k", 201)} {
		if p := want[admin.Problem](t, n, 400, "POST", "/v1/agencies/health/arm", `{"reason":"r","expected_epoch":"1.1"}`, "Idempotency-Key", key); p.Request == "" {
			t.Errorf("%+v", p)
		}
	}
}

// A call that is repeated after a restart acts once, as the first time.
func TestIdempotencyKeySurvives(t *testing.T) {
	folder, err := durable.Open(nil, filepath.Join(t.TempDir(), "answers"))
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"id":"a","source":"exchange","target":"ox","reason":"r"}`
	with := func(o *admin.Options) { o.Answers = folder }
	first := want[admin.Agency](t, admintest.Start(t, with), 201, "POST", "/v1/agencies", body, "Idempotency-Key", "k1")

	n := admintest.Start(t, with) // of another table: what isn't carried out can't show there
	status, h, text := call(t, n, "POST", "/v1/agencies", body, "Idempotency-Key", "k1")
	var again admin.Agency
	if err := json.Unmarshal([]byte(text), &again); err != nil || status != 201 || h.Get("Idempotency-Replayed") != "true" || again.Revision != first.Revision {
		t.Errorf("%d %v %s", status, h, text)
	}
	if list := want[admin.Agencies](t, n, 200, "GET", "/v1/agencies", ""); len(list.Agencies) != 0 {
		t.Errorf("it was carried out again: %+v", list)
	}
	want[admin.Problem](t, n, 422, "POST", "/v1/agencies", strings.Replace(body, `"a"`, `"b"`, 1), "Idempotency-Key", "k1")
}

// stuckFolder keeps what was written, and forgets nothing: as a node that is killed in the
// middle of a call.
type stuckFolder struct{ admin.Folder }

func (stuckFolder) Remove(...string) error { return errors.New("killed") }

func TestIdempotencyKeyOfAnInterruptedCall(t *testing.T) {
	folder, err := durable.Open(nil, filepath.Join(t.TempDir(), "answers"))
	if err != nil {
		t.Fatal(err)
	}
	const body = `{"id":"a","source":"exchange","target":"nowhere","reason":"r"}`
	n := admintest.Start(t, func(o *admin.Options) { o.Answers = stuckFolder{folder} })
	want[admin.Problem](t, n, 400, "POST", "/v1/agencies", body, "Idempotency-Key", "k1")
	n = admintest.Start(t, func(o *admin.Options) { o.Answers = folder })
	if p := want[admin.Problem](t, n, 409, "POST", "/v1/agencies", body, "Idempotency-Key", "k1"); !strings.Contains(p.Detail, "stopped while it carried out this call") {
		t.Errorf("%+v", p)
	}
}

// fullFolder can't be written.
type fullFolder struct{ admin.Folder }

func (fullFolder) Write(string, func(io.Writer) error) error {
	return errors.New("no space left on device")
}

func TestIdempotencyKeyOnAFullDisk(t *testing.T) {
	n := admintest.Start(t, func(o *admin.Options) { o.Answers = fullFolder{o.Answers} })
	want[admin.Problem](t, n, 503, "POST", "/v1/agencies", `{"id":"a","source":"exchange","target":"ox","reason":"r"}`, "Idempotency-Key", "k1")
	if list := want[admin.Agencies](t, n, 200, "GET", "/v1/agencies", ""); len(list.Agencies) != 0 {
		t.Errorf("%+v", list)
	}
}
