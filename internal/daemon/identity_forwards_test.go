package daemon

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/admin"
	"mailcutover/identity/desk"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// univention is what Univention's schema of mailboxes has, as far as the preset reads it.
var univention = []string{
	`attributetype ( 1.3.6.1.4.1.4203.666.1.7101 NAME 'mailPrimaryAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )`,
	`attributetype ( 1.3.6.1.4.1.4203.666.1.7102 NAME 'mailAlternativeAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )`,
	`attributetype ( 1.3.6.1.4.1.4203.666.1.7103 NAME 'mailForwardAddress' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )`,
	`attributetype ( 1.3.6.1.4.1.4203.666.1.7104 NAME 'mailForwardCopyToSelf' EQUALITY caseIgnoreIA5Match SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 SINGLE-VALUE )`,
	`objectclass ( 1.3.6.1.4.1.4203.666.1.7105 NAME 'univentionMail' AUXILIARY MAY ( mailPrimaryAddress $ mailAlternativeAddress $ mailForwardAddress $ mailForwardCopyToSelf ) )`,
}

// univentionPerson is a person as Univention's directory has one.
func univentionPerson(n int) string {
	id := mailboxID(n)
	return fmt.Sprintf("dn: uid=p%04d,dc=example,dc=org\nobjectClass: inetOrgPerson\nobjectClass: univentionMail\nuid: p%04[1]d\ncn: person %[1]d\nsn: person\nmailPrimaryAddress: p%04[1]d@health.example\nentryUUID: %x-%x-%x-%x-%x\n\n",
		n, id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// forwarder is both platforms, as far as hooks reach them: it does in the directories what forwards
// are on the platforms, except where it is told to do it wrong.
type forwarder struct {
	t              *testing.T
	source, target *peers.Slapd
	sourceReplaces map[string]map[string][]string // by directory id: what forward-on sets in the place of what is right
	targetReplaces map[string]map[string][]string
	keeps          map[string]bool // what forward-off leaves

	// late lets forward-on answer before it has done anything.
	late    time.Duration
	pending sync.WaitGroup
}

func (f *forwarder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodOptions {
		return
	}
	lines := bufio.NewScanner(r.Body)
	lines.Scan()
	var head struct{ Hook, Platform string }
	if err := json.Unmarshal(lines.Bytes(), &head); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var do []func()
	for lines.Scan() {
		var box struct {
			Mailbox   string
			Address   string
			ForwardTo string `json:"forward_to"`
		}
		if err := json.Unmarshal(lines.Bytes(), &box); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		fmt.Fprintf(w, "{\"mailbox\":%q,\"ok\":true}\n", box.Mailbox)
		if on := head.Hook == "forward-on"; on != (box.ForwardTo != "") && (on || head.Hook == "forward-off") {
			f.t.Errorf("%s on %s: %s is to be forwarded to %q", head.Hook, head.Platform, box.Address, box.ForwardTo)
		}
		do = append(do, func() { f.one(head.Hook, head.Platform, box.Mailbox, box.Address, box.ForwardTo) })
	}
	wait := time.Duration(0)
	if head.Hook == "forward-on" {
		wait = f.late
	}
	f.pending.Go(func() {
		time.Sleep(wait) // a server of the directory that others follow
		for _, f := range do {
			f()
		}
	})
	if wait == 0 {
		f.pending.Wait()
	}
}

func (f *forwarder) one(hook, platform, id, address, to string) {
	slapd, replaces, set := f.source, f.sourceReplaces[id], map[string][]string{"altRecipient": nil, "deliverAndRedirect": nil, "msExchGenericForwardingAddress": nil}
	n := strings.TrimLeft(strings.TrimSuffix(address, "@health.example"), "p0")
	dn, forward := "cn=person "+n+",ou=health,dc=example,dc=org", "msExchGenericForwardingAddress"
	if platform == "ox" {
		slapd, replaces, set = f.target, f.targetReplaces[id], map[string][]string{"mailForwardAddress": nil, "mailForwardCopyToSelf": nil}
		dn, forward = "uid=p000"+n+",dc=example,dc=org", "mailForwardAddress"
	}
	switch {
	case hook == "forward-on" && replaces != nil:
		for name, values := range replaces {
			set[name] = values
		}
	case hook == "forward-on":
		set[forward] = []string{to}
	case hook == "forward-off" && !f.keeps[id]:
	default:
		return
	}
	m := ldap.NewModifyRequest(dn, nil)
	for name, values := range set {
		m.Replace(name, values)
	}
	write(f.t, slapd, func(c *ldap.Conn) error { return c.Modify(m) })
}

// Two nodes and two directories of different kinds: what the hooks say that they did to forwards is
// read back from the directory of the platform, in both directions. A forward that is missing, that
// goes elsewhere, that leaves a copy, or that is left, ends the operation, with the mailboxes named;
// one that is seen late is waited for.
func TestForwardsAreReadBack(t *testing.T) {
	t.Parallel()
	contact := "dn: cn=p0004 moved,ou=health,dc=example,dc=org\nobjectClass: contact\ncn: p0004 moved\ntargetAddress: SMTP:P0004.tmp@health.example\n\n"
	ldif, provision := unit("health")+unit("tax")+contact, ""
	for n := 1; n <= 4; n++ {
		ldif, provision = ldif+person(n, "health"), provision+univentionPerson(n)
	}
	f := &forwarder{
		t: t, source: peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif}), target: peers.StartSlapd(t, peers.SlapdOptions{LDIF: provision, Global: univention}),
	}
	hooks := httptest.NewServer(f)
	defer hooks.Close()
	defer f.pending.Wait()
	redis := peers.StartRedis(t, peers.RedisOptions{})
	directories := fmt.Sprintf(`  directories:
    - {name: ad, servers: ["ldap://%s"], base: "dc=example,dc=org", bind: {dn: "%s", password_env: AD}, replication: 5s}
    - {name: ucs, role: target, preset: ucs, servers: ["ldap://%s"], base: "dc=example,dc=org", bind: {dn: "%[2]s", password_env: AD}, replication: 1s}
`, f.source.Addr, peers.SlapdAdmin, f.target.Addr)
	more := fmt.Sprintf("  coexistence:\n    - {patterns: [\"{local}.tmp@{domain}\"]}\ntable: {redis: {url: %q, allow_no_password: true, timeout: 5s}}\n", redis.URL())
	one, who := newIdentityBenchWith(t, directories, more)
	two, second := newIdentityBenchWith(t, directories, more+"# mx2\n")
	ctx := t.Context()
	one.agency(who, "health")
	two.until("the agency", func() bool { _, ok := two.replica.State().Agency("health"); return ok })
	for _, n := range []*bench{one, two} {
		if d, err := n.api.Directories(ctx, true); err != nil || len(d.Readings) != 2 || d.Readings[0].Objects != 4 || d.Readings[1].Objects != 4 || len(d.Problems) != 0 {
			t.Fatalf("%+v, %v", d, err)
		}
	}
	made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	if err != nil || len(made.Lists) != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	one.activate(who, admin.ListFile{Agency: "health", Name: "1", Content: []byte(made.Lists[0].CSV)})
	for _, n := range []*bench{one, two} {
		n.until("the list in force", func() bool { return n.cutoverCheck(t).OK })
		n.rehook(", outside:", fmt.Sprintf("forward_on: {url: %q, attempts: 1}, forward_off: {url: %[1]q, attempts: 1}", hooks.URL), "")
	}
	one.arm()

	id := func(n int) string { return mailboxID(n).String() }
	check := func(kind string) (c admin.PlanCheck, text string) {
		t.Helper()
		plan, err := second.operator.Plan(ctx, admin.PlanRequest{Kind: kind, Agency: "health"})
		if err != nil {
			t.Fatal(err)
		}
		for _, c = range plan.Checks {
			if c.Name == "forwards" {
				return c, plan.Text
			}
		}
		t.Fatalf("the plan says nothing of forwards: %+v", plan.Checks)
		return c, ""
	}
	if c, text := check("cutover"); !c.OK || !strings.Contains(c.Text, "0 of 4 go to their coexistence addresses") || !strings.Contains(text, "read back by directory ad, for 5s at most") {
		t.Errorf("%+v\n%s", c, text)
	}
	fails := func(kind operation.Kind, want ...string) {
		t.Helper()
		before, _ := two.replica.State().Agency("health")
		op, err := two.operate(kind)
		after, _ := two.replica.State().Agency("health")
		if !errors.Is(err, operation.ErrHook) || !errors.Is(err, desk.ErrForwards) || !after.Open() || after.Platform() != before.Platform() {
			t.Fatalf("%s: %+v, %v", kind, op, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %q", kind, err, w)
			}
		}
	}
	succeeds := func(kind operation.Kind, want string) {
		t.Helper()
		op, err := two.operate(kind)
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		receipts := ""
		for _, h := range op.Hooks {
			receipts += h.Name + ": " + h.Receipt + "\n"
		}
		if !strings.Contains(receipts, want) {
			t.Errorf("%s: %s\nwant %q", kind, receipts, want)
		}
	}
	sides := func(wrong int, want ...string) {
		t.Helper()
		v, err := second.operator.Forwards(ctx, "health")
		if err != nil || v.Wrong != wrong {
			t.Errorf("%+v, %v; want %d wrong", v, err, wrong)
		}
		text := ""
		for _, s := range v.Sides {
			text += s.Platform + " " + s.Wanted + "\n" + s.Unread
			for _, f := range s.Forwards {
				text += f.Text + "\n"
			}
		}
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("%s\nwant %q", text, w)
			}
		}
	}

	// The hook says that all is done, and it isn't.
	f.sourceReplaces = map[string]map[string][]string{
		id(1): {}, id(2): {"msExchGenericForwardingAddress": {"smtp:p0003.tmp@health.example"}},
		id(3): {"msExchGenericForwardingAddress": {"p0003.tmp@health.example"}, "deliverAndRedirect": {"TRUE"}},
		id(4): {"altRecipient": {"cn=p0004 moved,ou=health,dc=example,dc=org"}},
	}
	fails(operation.Cutover, "3 of 4 mailboxes of agency health on platform exchange, by directory ad", id(1)+" (missing)", id(2)+" (elsewhere)", id(3)+" (copies)")
	sides(0, "exchange off", "ox on") // the abort has taken all back, on both platforms

	// Somebody's own forward is told before; the way of forward-on takes it away.
	write(t, f.source, func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest("cn=person 2,ou=health,dc=example,dc=org", nil)
		m.Replace("msExchGenericForwardingAddress", []string{"smtp:private@elsewhere.example"})
		return c.Modify(m)
	})
	if c, _ := check("cutover"); c.OK || !c.Informs || !strings.Contains(c.Text, "p0002@health.example: it is forwarded to private@elsewhere.example, want p0002.tmp@health.example alone") {
		t.Errorf("%+v", c)
	}
	f.sourceReplaces = map[string]map[string][]string{id(4): f.sourceReplaces[id(4)]} // by a contact, which is right
	f.late = 300 * time.Millisecond
	succeeds(operation.Cutover, "read back by directory ad after")
	f.late = 0
	sides(0, "exchange on", "ox off")
	write(t, f.source, func(c *ldap.Conn) error {
		m := ldap.NewModifyRequest("cn=person 1,ou=health,dc=example,dc=org", nil)
		m.Replace("msExchGenericForwardingAddress", nil)
		return c.Modify(m)
	})
	sides(1, "p0001@health.example: it isn't forwarded, want p0001.tmp@health.example")

	// The way back: what is still forwarded on the source, and what the target's directory shows.
	f.keeps = map[string]bool{id(3): true}
	fails(operation.Rollback, "1 of 4 mailboxes of agency health on platform exchange", id(3)+" (left)")
	f.keeps = nil
	f.targetReplaces = map[string]map[string][]string{id(2): {"mailForwardAddress": {"p0002.tmp@health.example"}, "mailForwardCopyToSelf": {"1"}}}
	fails(operation.Rollback, "1 of 4 mailboxes of agency health on platform ox, by directory ucs", id(2)+" (copies)")
	f.targetReplaces = nil
	succeeds(operation.Rollback, "read back by directory ucs after")
	sides(0, "exchange off", "ox on")

	// A mailbox that the target's directory lost keeps no rollback back, and is told.
	write(t, f.target, func(c *ldap.Conn) error { return c.Del(ldap.NewDelRequest("uid=p0001,dc=example,dc=org", nil)) })
	sides(1, "the directory doesn't have mailbox "+id(1)+" once")

	f.source.Stop()
	if c, _ := check("cutover"); c.OK || c.Informs {
		t.Errorf("a directory that can't be asked: %+v", c)
	}
	if text := two.log.String(); strings.Contains(text, "private@elsewhere.example") {
		t.Error("the log names where somebody's mail goes")
	}
}
