package admin_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/mailboxlist"
	"mailcutover/rollback/rehearse"
	"mailcutover/routing"
)

// rehearsed is a record of an agency's rehearsal that just ended.
func rehearsed(agency routing.AgencyID, mapping routing.Digest) rehearse.Record {
	now := time.Now().UTC()
	return rehearse.Record{
		ID: "7f3a", Agency: agency, Began: now.Add(-time.Minute), Ended: now, Version: "test", Mapping: mapping, Mailboxes: 2, Of: 3,
		Cutover: rehearse.Switch{Done: true, Seconds: 0.1, Closed: 0.01}, Rollback: rehearse.Switch{Done: true, Seconds: 1, Closed: 1},
		Mail: rehearse.Mail{Sent: 9, Right: 9}, Logins: rehearse.Logins{Right: 3}, Passed: true,
	}
}

// rehearsedNowhere is the body of a call about an agency that isn't there.
func rehearsedNowhere() string {
	r := rehearsed("nowhere", routing.Digest{1})
	text, err := r.Text()
	if err != nil {
		panic(err) // it is good
	}
	return `{"record":` + text + `,"reason":"r"}`
}

// answered is the status of a problem; 0: it is none.
func answered(err error) int {
	if p, ok := errors.AsType[*admin.Problem](err); ok {
		return p.Status
	}
	return 0
}

// A record is kept in the name of who sent it, if it is whole, new, and of the list in force.
func TestRehearsals(t *testing.T) {
	n := admintest.Start(t, nil)
	client, err := admin.NewClient(n.URL, admintest.Anna, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.AddAgency(t.Context(), admin.NewAgency{ID: "health", Source: admintest.Source, Target: admintest.Target, Domains: []string{"health.example"}, Reason: "test"}); err != nil {
		t.Fatal(err)
	}
	list := strings.Join(mailboxlist.Columns(), ",") + "\nanna@health.example,6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2,health,user,,,,,,,\n"
	if _, err := client.Import(t.Context(), strings.NewReader(list), "test", false); err != nil {
		t.Fatal(err)
	}
	a, err := client.Agency(t.Context(), "health")
	if err != nil {
		t.Fatal(err)
	}
	if all, err := client.Rehearsals(t.Context(), ""); err != nil || len(all) != 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	mapping, err := routing.ParseDigest(a.Mapping)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*rehearse.Record)
		status int
	}{
		"of another list": {func(r *rehearse.Record) { r.Mapping[0] ^= 1 }, http.StatusConflict},
		"of last week":    {func(r *rehearse.Record) { r.Began, r.Ended = r.Began.AddDate(0, 0, -7), r.Ended.AddDate(0, 0, -7) }, http.StatusConflict},
		"of tomorrow":     {func(r *rehearse.Record) { r.Ended = r.Ended.AddDate(0, 0, 1) }, http.StatusConflict},
		"passed, and not": {func(r *rehearse.Record) { r.Mail.Lost = 1 }, http.StatusBadRequest},
		"of nobody":       {func(r *rehearse.Record) { r.Agency = "nowhere" }, http.StatusNotFound},
	} {
		r := rehearsed("health", mapping)
		c.change(&r)
		if _, err := client.StoreRehearsal(t.Context(), admin.NewRehearsal{Record: r, Reason: "test"}); answered(err) != c.status {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := rehearsed("health", mapping)
	r.Who, r.Reason = "somebody else", "none"
	stored, err := client.StoreRehearsal(t.Context(), admin.NewRehearsal{Record: r, Reason: "before wave 3"})
	if err != nil || stored.Who == "somebody else" || stored.Reason != "before wave 3" || !stored.Current {
		t.Fatalf("%+v, %v", stored, err)
	}
	d, ok := n.Replica.State().Document(rehearse.Key("health"))
	if again, err := rehearse.ParseRecord(d.Text); !ok || err != nil || again.ID != r.ID || again.Who != stored.Who {
		t.Errorf("the table has %q, %v", d.Text, err)
	}

	// One that failed is not replaced by the one that passed before it, nor told otherwise.
	failed := rehearsed("health", mapping)
	failed.ID, failed.Passed, failed.Mail.Lost = "7f3b", false, 1
	for range 2 { // once more, as after a lost answer
		if _, err := client.StoreRehearsal(t.Context(), admin.NewRehearsal{Record: failed, Reason: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	mended := failed
	mended.Passed, mended.Mail.Lost = true, 0
	for what, old := range map[string]rehearse.Record{"the one before": r, "another result": mended} {
		if _, err := client.StoreRehearsal(t.Context(), admin.NewRehearsal{Record: old, Reason: "test"}); answered(err) != http.StatusConflict {
			t.Errorf("%s: %v", what, err)
		}
	}
	if all, err := client.Rehearsals(t.Context(), "health"); err != nil || len(all) != 1 || all[0].Passed {
		t.Errorf("%+v, %v", all, err)
	}
}
