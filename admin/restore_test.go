package admin_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"testing"

	"mailcutover/admin"
	"mailcutover/admin/admintest"
	"mailcutover/routing/table"
)

// An empty table is filled from a backup by an admin and as many approvers as are asked for, each of
// whom names just that backup; by nobody twice, and each word is in the audit log before it counts.
func TestRestoreByTwoPeople(t *testing.T) {
	t.Parallel()
	client := func(n *admintest.Node, token string) *admin.Client {
		t.Helper()
		c, err := admin.NewClient(n.URL, token, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	lost := admintest.Start(t, required)
	addHealth(t, lost)
	var file, other bytes.Buffer
	made, err := client(lost, admintest.Carla).Backup(t.Context(), &file, "nightly")
	if err != nil {
		t.Fatal(err)
	}
	want[admin.Agency](t, lost, 201, "POST", "/v1/agencies", `{"id":"tax","source":"exchange","target":"ox","reason":"second"}`)
	another, err := client(lost, admintest.Carla).Backup(t.Context(), &other, "nightly")
	if err != nil || another.Digest == made.Digest {
		t.Fatalf("%v", err)
	}

	const second = "anna-approves"
	n := admintest.Start(t, func(o *admin.Options) {
		required(o)
		o.Approvals = func() int { return 2 }
		tokens := o.Tokens
		o.Tokens = func() []admin.Token {
			return append(tokens(), admin.Token{Name: "anna-other", Person: "anna  BERG", SHA256: sha256.Sum256([]byte(second)), Roles: []admin.Role{admin.RoleApprover}})
		}
	})
	digest := made.Digest.String()
	refused := func(what string, status int, err error) {
		t.Helper()
		var p *admin.Problem
		if !errors.As(err, &p) || p.Status != status {
			t.Errorf("%s: %v, want %d", what, err, status)
		}
		if u, err := n.Table.Snapshot(t.Context()); err == nil && !table.Bare(&u) {
			t.Fatalf("%s: the table is filled", what)
		}
	}
	approve := func(token, digest string) (admin.Restoration, error) {
		return client(n, token).ApproveRestore(t.Context(), digest, "same digest as in the audit log")
	}
	propose := func(b *bytes.Buffer, reason string, dryRun bool) (admin.Restoration, error) {
		return client(n, admintest.Anna).ProposeRestore(t.Context(), bytes.NewReader(b.Bytes()), reason, false, dryRun)
	}
	_, err = approve(admintest.Ben, digest)
	refused("what nobody proposed", 409, err)
	if v, err := propose(&file, "what would it do", true); err != nil || v.Digest != digest || v.Proposer != "" || v.Wanted != 2 || fmt.Sprint(v.Agencies) != "[health]" {
		t.Fatalf("%+v, %v", v, err)
	}
	_, err = client(n, admintest.Ben).Restoration(t.Context())
	refused("a dry run that proposes", 404, err)
	if v, err := propose(&other, "redis is lost", false); err != nil || v.Done != "" || v.Proposer != "Anna Berg" {
		t.Fatalf("%+v, %v", v, err)
	}
	if v, err := approve(admintest.Ben, another.Digest.String()); err != nil || v.Done != "" || len(v.Approvers) != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	// Another file in its place: what was approved of the first one counts for nothing.
	if v, err := propose(&file, "the older one is right", false); err != nil || v.Done != "" || len(v.Approvers) != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	_, err = approve(admintest.Carla, another.Digest.String())
	refused("another backup", 412, err)
	_, err = approve(admintest.Anna, digest)
	refused("the proposer's own token, which is no approver's", 403, err)
	_, err = approve(second, digest)
	refused("the proposer by another token and spelling", 403, err)
	for range 2 { // one person, twice
		if v, err := approve(admintest.Ben, digest); err != nil || v.Done != "" || fmt.Sprint(v.Approvers) != "[Ben Roth]" {
			t.Fatalf("%+v, %v", v, err)
		}
	}
	if v, err := client(n, admintest.Carla).Restoration(t.Context()); err != nil || v.Digest != digest || v.Proposer != "Anna Berg" || len(v.Approvers) != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	refused("two of three people", 404, &admin.Problem{Status: 404})
	if v, err := approve(admintest.Carla, digest); err != nil || v.Done == "" {
		t.Fatalf("%+v, %v", v, err)
	}
	pos, err := n.Table.Position(t.Context())
	if err == nil {
		err = n.Replica.Wait(t.Context(), pos)
	}
	if err != nil {
		t.Fatal(err)
	}
	if a := want[admin.Agency](t, n, 200, "GET", "/v1/agencies/health", ""); !a.Locked {
		t.Errorf("%+v", a)
	}
	want[admin.Problem](t, n, 404, "GET", "/v1/agencies/tax", "")

	// Once.
	var p *admin.Problem
	if _, err := approve(admintest.Carla, digest); !errors.As(err, &p) || p.Status != 409 {
		t.Errorf("approved again: %v", err)
	}
	if _, err := propose(&file, "again", false); !errors.As(err, &p) || p.Status != 409 {
		t.Errorf("a table that has something: %v", err)
	}
	var log strings.Builder
	if _, err := client(n, admintest.Anna).AuditExport(t.Context(), &log); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(log.String(), digest); got != 4 { // proposed once, approved three times
		t.Errorf("%d records name the backup", got)
	}
}
