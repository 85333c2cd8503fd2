package daemon

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/admin"
	"mailcutover/internal/platformtest"
	"mailcutover/test/peers"
)

// standing is that of one list.
func (b *bench) standing(id string) string {
	b.t.Helper()
	l, err := b.api.List(b.t.Context(), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return l.Standing
}

// A list that gives an address to another mailbox is in force once its operation has opened
// the agency, and not before: aborted, it is approved as it was, and is activated again.
func TestListThatChangesAnswers(t *testing.T) {
	ldif := unit("health") + unit("tax") + person(1, "health", "proxyAddresses: smtp:info@health.example")
	for n := 2; n <= 5; n++ {
		ldif += person(n, "health")
	}
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	b, who := newIdentityBench(t, slapd, "")
	ctx := t.Context()
	b.agency(who, "health")
	generate := func() admin.ListFile {
		t.Helper()
		made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health", Refresh: true})
		if err != nil || len(made.Lists) != 1 {
			t.Fatalf("%+v, %v", made, err)
		}
		return admin.ListFile{Agency: "health", Name: made.Lists[0].ID, Content: []byte(made.Lists[0].CSV)}
	}
	first := generate()
	b.activate(who, first)
	b.arm()
	from, to := ldap.NewModifyRequest("cn=person 1,ou=health,dc=example,dc=org", nil), ldap.NewModifyRequest("cn=person 2,ou=health,dc=example,dc=org", nil)
	from.Delete("proxyAddresses", []string{"smtp:info@health.example"})
	to.Add("proxyAddresses", []string{"smtp:info@health.example"})
	write(t, slapd, func(c *ldap.Conn) error {
		if err := c.Modify(from); err != nil {
			return err
		}
		return c.Modify(to)
	})
	second := generate()
	p, err := who.planner.ImportList(ctx, second, "info is another's now")
	if err != nil || !strings.Contains(p.Text, "ACTIVATING IT CHANGES ROUTES") || !strings.Contains(p.Text, "address info@health.example: mailbox "+mailboxID(1).String()) {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := who.approver.ApproveTyped(ctx, p.ID, p.Digest, "5", ""); err != nil {
		t.Fatal(err)
	}
	if got := b.standing(second.Name); got != "approved" {
		t.Errorf("approved, it is %s", got)
	}

	// A dot under way keeps the operation in its drain.
	release := make(chan struct{})
	b.a.SetScript(func(c platformtest.Command) platformtest.Reaction {
		if c.Verb == platformtest.VerbDot {
			<-release
		}
		return platformtest.Reaction{}
	})
	answered := b.underWay("info@health.example")
	started, err := who.operator.StartProposal(ctx, p.ID)
	if err != nil || started.Operation == nil {
		t.Fatalf("%+v, %v", started, err)
	}
	if got := b.standing(second.Name); got != "pending" {
		t.Errorf("while its operation waits, the list is %s", got)
	}
	_, err = who.planner.WithdrawList(ctx, second.Name, "no")
	b.problem(err, http.StatusConflict, "is bringing list "+second.Name+" into force")
	_, err = who.operator.StartProposal(ctx, p.ID)
	b.problem(err, http.StatusConflict, "it is used")
	if _, err := who.operator.Abort(ctx, started.Operation.ID, "not now"); err != nil {
		t.Fatal(err)
	}
	b.until("approved again", func() bool { return b.standing(second.Name) == "approved" })
	if d := b.gate.Address("info@health.example"); d.Mailbox != mailboxID(1) {
		t.Errorf("aborted, info is %s", d.Mailbox)
	}
	b.a.SetScript(nil)
	close(release)
	answered(250)
	if c := b.cutoverCheck(t); c.OK || !strings.Contains(c.Text, "info@health.example: it has this address, which is now that of mailbox "+mailboxID(2).String()) {
		t.Errorf("%+v", c)
	}

	started, err = who.operator.StartProposal(ctx, p.ID)
	if err != nil || started.Operation == nil {
		t.Fatalf("%+v, %v", started, err)
	}
	b.until("active", func() bool { return b.standing(second.Name) == "active" })
	if d := b.gate.Address("info@health.example"); d.Mailbox != mailboxID(2) {
		t.Errorf("in force, info is %s", d.Mailbox)
	}
	if c := b.cutoverCheck(t); !c.OK {
		t.Errorf("%+v", c)
	}
	l, err := who.operator.List(ctx, second.Name)
	if err != nil || l.Operation != started.Operation.ID || strings.Join(l.Approved, ",") != "The approver" {
		t.Errorf("%+v, %v", l, err)
	}
	if all, err := who.operator.Lists(ctx, "health"); err != nil || len(all.Lists) != 2 || all.Lists[1].ID != first.Name || all.Lists[1].Standing != "superseded" {
		t.Errorf("%+v, %v", all, err)
	}
}

// What was approved is activated as it was approved, or not at all; nobody approves his own by
// another token; and a list comes into force once.
func TestListsAreActivatedAsApproved(t *testing.T) {
	ldif := unit("health") + unit("tax")
	for n := 1; n <= 4; n++ {
		ldif += person(n, "health")
	}
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	b, who := newIdentityBench(t, slapd, "  places:\n    - {platform: exchange, login: \"{account}\"}\n")
	ctx := t.Context()
	b.agency(who, "health")
	made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health", Refresh: true})
	if err != nil || len(made.Lists) != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	file := admin.ListFile{Agency: "health", Name: "a.csv", Content: []byte(made.Lists[0].CSV)}
	propose := func() admin.Proposal {
		t.Helper()
		p, err := who.planner.ImportList(ctx, file, "wave 1")
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := propose()
	if again := propose(); again.ID != p.ID {
		t.Errorf("the same list is proposed twice: %s and %s", p.ID, again.ID)
	}
	if _, err := who.second.ApproveTyped(ctx, p.ID, p.Digest, "4", ""); err == nil {
		t.Error("the planner has approved with another token")
	} else {
		b.problem(err, http.StatusForbidden, "nobody approves what he has proposed himself")
	}
	_, err = who.approver.ApproveTyped(ctx, p.ID, p.Digest, "3", "")
	b.problem(err, http.StatusBadRequest, "neither the number of mailboxes nor the agency")
	if _, err := who.approver.ApproveTyped(ctx, p.ID, p.Digest, "health", ""); err != nil {
		t.Fatal(err)
	}

	// Between approval and activation two persons exchange their addresses.
	exchange := func(a, b int) {
		t.Helper()
		give := func(n, address int) *ldap.ModifyRequest {
			m := ldap.NewModifyRequest(fmt.Sprintf("cn=person %d,ou=health,dc=example,dc=org", n), nil)
			m.Replace("mail", []string{fmt.Sprintf("p%04d@health.example", address)})
			m.Replace("proxyAddresses", []string{fmt.Sprintf("SMTP:p%04d@health.example", address)})
			return m
		}
		write(t, slapd, func(c *ldap.Conn) error { return errors.Join(c.Modify(give(1, a)), c.Modify(give(2, b))) })
		if _, err := who.operator.Directories(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	exchange(2, 1)
	_, err = who.operator.StartProposal(ctx, p.ID)
	b.problem(err, http.StatusConflict, "void")
	if m := b.replica.State().Mapping("health"); m.Len() != 0 {
		t.Fatalf("%d mailboxes came into force", m.Len())
	}
	_, err = who.planner.ImportList(ctx, file, "wave 1")
	b.problem(err, http.StatusBadRequest, "2 mailboxes would get another one's mail")
	exchange(1, 2)
	_, err = who.operator.StartProposal(ctx, p.ID) // void stays void, though all is as it was
	b.problem(err, http.StatusConflict, "void")

	// So do two their accounts, of which the list says nothing: but a platform is told them.
	p = propose()
	if _, err := who.approver.ApproveTyped(ctx, p.ID, p.Digest, "4", ""); err != nil {
		t.Fatal(err)
	}
	accounts := func(a, b string) {
		t.Helper()
		for n, account := range map[int]string{3: a, 4: b} {
			m := ldap.NewModifyRequest(fmt.Sprintf("cn=person %d,ou=health,dc=example,dc=org", n), nil)
			m.Replace("sAMAccountName", []string{account})
			write(t, slapd, func(c *ldap.Conn) error { return c.Modify(m) })
		}
		if _, err := who.operator.Directories(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	accounts("p0004", "p0003")
	_, err = who.operator.StartProposal(ctx, p.ID)
	b.problem(err, http.StatusConflict, "void")
	accounts("p0003", "p0004")

	b.activate(who, file)
	list := made.Lists[0].ID
	_, err = who.planner.ImportList(ctx, file, "once more")
	b.problem(err, http.StatusConflict, "is in the table already")
	if _, err := who.planner.WithdrawList(ctx, list, "wrong wave"); err != nil {
		t.Fatal(err)
	}
	_, err = who.planner.ImportList(ctx, file, "once more")
	b.problem(err, http.StatusConflict, "is in the table already")
	if c := b.cutoverCheck(t); c.OK || !strings.Contains(c.Text, "no list in force names the mailbox") {
		t.Errorf("%+v", c)
	}
}

// agency adds an agency, by two persons.
func (b *bench) agency(who people, id string) {
	b.t.Helper()
	b.agreed(who, admin.NewProposal{Kind: "add-agency", Add: &admin.AddedAgency{ID: id, Source: "exchange", Target: "ox", Domains: []string{id + ".example"}}, Reason: "test"})
}

// agreed does what a planner proposes and another person approves.
func (b *bench) agreed(who people, what admin.NewProposal) {
	b.t.Helper()
	ctx := b.t.Context()
	p, err := who.planner.Propose(ctx, what)
	if err == nil {
		_, err = who.approver.Approve(ctx, p.ID, p.Digest, "")
	}
	if err == nil {
		_, err = who.planner.StartProposal(ctx, p.ID)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// A list that brings a mailbox from another agency is that one's too: who is there for the list's
// agency alone neither proposes nor approves it.
func TestListThatTakesFromAnotherAgency(t *testing.T) {
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: unit("health") + unit("tax") + person(1, "health") + person(2, "tax") + person(3, "tax")})
	b, who := newIdentityBench(t, slapd, "")
	ctx := t.Context()
	as := func(token string) *admin.Client {
		c, err := admin.NewClient("http://"+b.AdminAddr().String(), token, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	planner, approver := as("health planner"), as("health approver")
	generate := func(agency string) admin.ListFile {
		t.Helper()
		made, err := who.planner.Generate(ctx, admin.NewLists{Agency: agency, Refresh: true, AcceptChanges: true})
		if err != nil || len(made.Lists) != 1 {
			t.Fatalf("%+v, %v", made, err)
		}
		return admin.ListFile{Agency: agency, Name: made.Lists[0].ID, Content: []byte(made.Lists[0].CSV)}
	}
	for _, agency := range []string{"health", "tax"} {
		b.agency(who, agency)
		b.activate(who, generate(agency))
	}
	write(t, slapd, func(c *ldap.Conn) error {
		return c.ModifyDN(ldap.NewModifyDNRequest("cn=person 2,ou=tax,dc=example,dc=org", "cn=person 2", false, "ou=health,dc=example,dc=org"))
	})
	taking := generate("health")
	_, err := planner.ImportList(ctx, taking, "moved")
	b.problem(err, http.StatusForbidden, `is not for agency "tax"`)
	p, err := who.planner.ImportList(ctx, taking, "moved")
	if err != nil || !strings.Contains(p.Text, "ACTIVATING IT CHANGES ROUTES") {
		t.Fatalf("%+v, %v", p, err)
	}
	_, err = approver.ApproveTyped(ctx, p.ID, p.Digest, "health", "")
	b.problem(err, http.StatusForbidden, `is not for agency "tax"`)
	if p, err = who.approver.ApproveTyped(ctx, p.ID, p.Digest, "health", ""); err != nil || p.State != "approved" {
		t.Errorf("%+v, %v", p, err)
	}
}
