package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// provisioned is a person as the target's OpenLDAP has one: with AD's id as a text.
func provisioned(n, address int) string {
	return fmt.Sprintf("dn: uid=p%04d,dc=example,dc=org\nobjectClass: inetOrgPerson\nuid: p%04[1]d\ncn: person %[1]d\nsn: person\nemployeeNumber: %[3]s\nmail: p%04[2]d@health.example\n\n", n, address, mailboxID(n))
}

// The source's directory is read over TLS, by a certificate (SASL EXTERNAL), and a certificate of
// nobody reads nothing; the target's is another kind beside it. A list that the target's contradicts
// is refused, what is not there yet is a warning, and what is mixed up there after the approval
// keeps the agency from being cut over.
func TestTwoDirectories(t *testing.T) {
	ca, err := platformtest.NewCA()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile, caFile, err := ca.WriteFiles(dir, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	certificate := func(name string) string {
		t.Helper()
		of := filepath.Join(dir, name)
		if err := os.Mkdir(of, 0o700); err != nil {
			t.Fatal(err)
		}
		cert, key, _, err := ca.WriteFiles(of, name)
		if err = errors.Join(err, os.Chmod(key, 0o600)); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf(", cert_file: %s, key_file: %s", cert, key)
	}
	ldif := unit("health") + unit("tax")
	for n := 1; n <= 4; n++ {
		ldif += person(n, "health")
	}
	source := peers.StartSlapd(t, peers.SlapdOptions{
		LDIF: ldif, CertFile: certFile, KeyFile: keyFile, CAFile: caFile,
		Settings: []string{`access to * by dn.regex="mailcutover.example" read by * none`},
	})
	target := peers.StartSlapd(t, peers.SlapdOptions{LDIF: provisioned(1, 1) + provisioned(2, 2) + provisioned(3, 4)})
	config := func(bind string) string {
		return fmt.Sprintf(`  directories:
    - name: ad
      servers: ["ldaps://%s"]
      base: "dc=example,dc=org"
      tls: {ca_file: %s%s}
      bind: {external: true}
    - name: ox
      role: target
      preset: openldap
      servers: ["ldap://%s"]
      base: "dc=example,dc=org"
      bind: {dn: "%s", password_env: AD}
      attributes: {id: employeeNumber, id_form: ad}
`, source.TLSAddr, caFile, bind, target.Addr, peers.SlapdAdmin)
	}
	b, who := newIdentityBenchWith(t, config(certificate("mailcutover.example")), "")
	ctx := t.Context()
	b.agency(who, "health")
	d, err := who.operator.Directories(ctx, true)
	if err != nil || len(d.Readings) != 2 || d.Readings[0].Directory != "ad" || d.Readings[0].Objects != 4 || d.Readings[1].Objects != 3 {
		t.Fatalf("%+v, %v", d, err)
	}

	made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	if err != nil || len(made.Lists) != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	file := admin.ListFile{Agency: "health", Name: "a.csv", Content: []byte(made.Lists[0].CSV), Refresh: true}
	// On the target the third has the fourth's address.
	_, err = who.planner.ImportList(ctx, file, "wave 1")
	b.problem(err, http.StatusBadRequest, "ox has another pair")
	write(t, target, func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest("uid=p0003,dc=example,dc=org", nil)
		m.Replace("mail", []string{"p0003@health.example"})
		return c.Modify(m)
	})
	found, err := who.planner.CheckList(ctx, file, admin.ReportFormat{Format: "text"})
	if err != nil || !found.Clean || found.Warnings != 1 || !strings.Contains(found.Report, "ox doesn't know the mailbox yet") {
		t.Fatalf("%+v, %v", found, err)
	}
	b.activate(who, file)
	if c := b.cutoverCheck(t); !c.OK {
		t.Errorf("%+v", c)
	}

	// Two are mixed up on the target after all was approved.
	write(t, target, func(c *ldap.Conn) error {
		give := func(n, address int) *ldap.ModifyRequest {
			m := ldap.NewModifyRequest(fmt.Sprintf("uid=p%04d,dc=example,dc=org", n), nil)
			m.Replace("mail", []string{fmt.Sprintf("p%04d@health.example", address)})
			return m
		}
		return errors.Join(c.Modify(give(1, 2)), c.Modify(give(2, 1)))
	})
	if _, err := who.operator.Directories(ctx, true); err != nil {
		t.Fatal(err)
	}
	if c := b.cutoverCheck(t); c.OK || !strings.Contains(c.Text, "p0001@health.example: in the target's directory it is the mailbox "+mailboxID(2).String()) {
		t.Errorf("%+v", c)
	}
	b.until("the alarm", func() bool { return strings.Contains(b.alarm("drift/health"), "p0002@health.example") })

	// A certificate of somebody else is let in, and sees nothing: that is no directory without
	// mailboxes.
	b.writeDirectories(config(certificate("stranger.example")), "")
	if _, err := b.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	if d, err := who.operator.Directories(ctx, true); err == nil {
		t.Errorf("read by a stranger's certificate: %+v", d)
	}
	if _, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"}); err == nil {
		t.Error("lists were generated")
	}
}

// Two nodes with directories: what one makes the other takes, and the last word is a third
// person's at the first. Both have the lists.
func TestListsOfTwoNodes(t *testing.T) {
	ldif := unit("health") + unit("tax")
	for n := 1; n <= 4; n++ {
		ldif += person(n, "health")
	}
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	redis := peers.StartRedis(t, peers.RedisOptions{})
	more := fmt.Sprintf("table: {redis: {url: %q, allow_no_password: true, timeout: 5s}}\n", redis.URL())
	one, first := newIdentityBench(t, slapd, more)
	two, second := newIdentityBench(t, slapd, more+"# mx2\n")
	ctx := t.Context()
	one.agency(first, "health")
	for _, n := range []*bench{one, two} {
		n.until("the agency", func() bool { _, ok := n.replica.State().Agency("health"); return ok })
		if _, err := n.api.Directories(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	made, err := first.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	if err != nil || len(made.Lists) != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	p, err := second.planner.ImportList(ctx, admin.ListFile{Agency: "health", Name: "a.csv", Content: []byte(made.Lists[0].CSV)}, "wave 1")
	if err != nil {
		t.Fatal(err)
	}
	one.until("the proposal", func() bool { _, err := first.approver.Proposal(ctx, p.ID); return err == nil })
	if _, err := first.approver.ApproveTyped(ctx, p.ID, p.Digest, "4", ""); err != nil {
		t.Fatal(err)
	}
	two.until("the approval", func() bool { q, err := second.operator.Proposal(ctx, p.ID); return err == nil && q.Missing == 0 })
	if _, err := second.operator.StartProposal(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	for i, n := range []*bench{one, two} {
		n.until("the list in force", func() bool { l, err := n.api.List(ctx, made.Lists[0].ID); return err == nil && l.Standing == "active" })
		if d := n.gate.Address("p0003@health.example"); d.Mailbox != mailboxID(3) {
			t.Errorf("node %d: %+v", i+1, d)
		}
		if c := n.cutoverCheck(t); !c.OK {
			t.Errorf("node %d: %+v", i+1, c)
		}
	}
	if _, err := first.planner.WithdrawList(ctx, made.Lists[0].ID, "wrong wave"); err != nil {
		t.Fatal(err)
	}
	two.until("the withdrawal", func() bool { return !two.cutoverCheck(t).OK })
}
