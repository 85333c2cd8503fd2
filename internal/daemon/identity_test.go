package daemon

import (
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/smtp"
	"net/textproto"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/admin"
	"mailcutover/internal/config"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// mailboxID is the directory id of a person.
func mailboxID(n int) routing.MailboxID {
	return routing.MailboxID{9, byte(n), byte(n >> 8), 0x77, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
}

// person is an entry of the directory, as Active Directory has one.
func person(n int, ou string, more ...string) string {
	id := mailboxID(n)
	lines := []string{
		"objectClass: user", fmt.Sprintf("cn: person %d", n), "objectGUID:: " + base64.StdEncoding.EncodeToString(id[:]),
		fmt.Sprintf("sAMAccountName: p%04d", n), fmt.Sprintf("mail: p%04d@%s.example", n, ou), fmt.Sprintf("proxyAddresses: SMTP:p%04d@%s.example", n, ou),
		fmt.Sprintf("legacyExchangeDN: /o=Org/ou=First Group/cn=Recipients/cn=p%04d", n), "userAccountControl: 512",
	}
	lines = append(lines, more...)
	slices.SortStableFunc(lines, func(a, b string) int { // slapadd wants the values of an attribute together
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return fmt.Sprintf("dn: cn=person %d,ou=%s,dc=example,dc=org\n", n, ou) + strings.Join(lines, "\n") + "\n\n"
}

func unit(name string) string {
	return "dn: ou=" + name + ",dc=example,dc=org\nobjectClass: organizationalUnit\nou: " + name + "\n\n"
}

// write changes the directory.
func write(t *testing.T, slapd *peers.Slapd, do func(*ldap.Conn) error) {
	t.Helper()
	c, err := ldap.DialURL("ldap://" + slapd.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.Bind(peers.SlapdAdmin, peers.SlapdPassword), do(c)); err != nil {
		t.Fatal(err)
	}
}

// people are the tokens of a node that is no lab, by role.
type people struct{ planner, approver, operator, second *admin.Client }

// newIdentityBench starts a node that is no lab, with a directory.
func newIdentityBench(t *testing.T, slapd *peers.Slapd, more string) (*bench, people) {
	t.Helper()
	return newIdentityBenchWith(t, directoryOf(slapd), more)
}

// directoryOf are the settings of one directory.
func directoryOf(slapd *peers.Slapd) string {
	return fmt.Sprintf("  directories:\n    - {name: ad, servers: [\"ldap://%s\"], base: \"dc=example,dc=org\", bind: {dn: \"%s\", password_env: AD}}\n", slapd.Addr, peers.SlapdAdmin)
}

// newIdentityBenchWith is newIdentityBench with these settings of directories.
func newIdentityBenchWith(t *testing.T, directories, more string) (*bench, people) {
	t.Helper()
	b := &bench{t: t, path: filepath.Join(t.TempDir(), "mailcutover.yaml"), log: new(lines)}
	b.startPlatforms()
	b.writeDirectories(directories, more)
	cfg, err := config.Load(b.path, identityEnviron)
	if err != nil {
		t.Fatal(err)
	}
	b.Daemon, err = Start(t.Context(), cfg, Options{Logger: slog.New(slog.NewJSONHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug})), Environ: identityEnviron, Version: admin.Version{Version: "test"}})
	if err != nil {
		t.Fatal(err)
	}
	d := b.Daemon
	t.Cleanup(func() { b.stop(d) })
	b.until("a lease", func() bool { return b.gate.Ready() == nil })
	as := func(token string) *admin.Client {
		c, err := admin.NewClient("http://"+d.AdminAddr().String(), token, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	who := people{as("planner"), as("approver"), as("operator"), as("second")}
	b.api = who.operator
	return b, who
}

var identityEnviron = []string{"LISTS=a key for lists, for tests", "AD=" + peers.SlapdPassword}

func (b *bench) writeDirectories(directories, more string) {
	b.t.Helper()
	var tokens strings.Builder
	for _, role := range []string{"planner", "approver", "operator"} {
		hash := config.HashToken(role)
		fmt.Fprintf(&tokens, "    - {name: %s, person: The %s, sha256: \"%x\", roles: [%s]}\n", role, role, hash[:], role)
	}
	hash := config.HashToken("second") // of a person who has another one
	fmt.Fprintf(&tokens, "    - {name: second, person: the  Planner, sha256: \"%x\", roles: [approver]}\n", hash[:])
	for _, role := range []string{"planner", "approver"} { // for one agency
		hash := config.HashToken("health " + role)
		fmt.Fprintf(&tokens, "    - {name: health-%s, person: Health's %s, sha256: \"%x\", roles: [%s], agencies: [health]}\n", role, role, hash[:], role)
	}
	node := "mx1.example"
	if strings.Contains(more, "# mx2") {
		node = "mx2.example"
	}
	text := fmt.Sprintf(`node: %s
data: %s
listeners:
  - {id: mx, address: "127.0.0.1:0"}
platforms:
  - {id: exchange, outside: {hosts: ["%s"]}}
  - {id: ox, outside: {hosts: ["%s"]}}
routing: {postmaster: p0001@health.example}
admin:
  address: "127.0.0.1:0"
  tokens:
%s
identity:
  key_env: LISTS
  list_rows: 20
%s
  agencies:
    - {agency: health, bases: ["ou=health,dc=example,dc=org"]}
    - {agency: tax, bases: ["ou=tax,dc=example,dc=org"]}
%s
`, node, filepath.Join(filepath.Dir(b.path), "data"), b.a.Addr(), b.b.Addr(), tokens.String(), directories, more)
	if err := os.WriteFile(b.path, []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// problem is the answer to a call that has to be refused.
func (b *bench) problem(err error, status int, want string) *admin.Problem {
	b.t.Helper()
	p, ok := errors.AsType[*admin.Problem](err)
	if !ok || p.Status != status {
		b.t.Fatalf("%v, want status %d", err, status)
	}
	text := p.Detail
	for _, e := range p.Errors {
		text += "\n" + e.Where + ": " + e.Message
	}
	if !strings.Contains(text, want) {
		b.t.Fatalf("%s\nwant %q in it", text, want)
	}
	return p
}

// activate brings a list into force, by three persons.
func (b *bench) activate(who people, file admin.ListFile) admin.Proposal {
	b.t.Helper()
	p, err := who.planner.ImportList(b.t.Context(), file, "wave 1")
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err = who.approver.ApproveTyped(b.t.Context(), p.ID, p.Digest, file.Agency, ""); err != nil {
		b.t.Fatal(err)
	}
	if _, err = who.operator.StartProposal(b.t.Context(), p.ID); err != nil {
		b.t.Fatal(err)
	}
	return p
}

// From the directory to the cutover: a list is made, and mixed up on its way; it is refused.
// The right one is proposed, approved by another, who types its number, and activated.
// Then the agency may be cut over, until the directory says otherwise.
func TestListsToCutover(t *testing.T) {
	ldif := unit("health") + unit("tax")
	const mailboxes = 30
	for n := 1; n <= mailboxes; n++ {
		ldif += person(n, "health")
	}
	ldif += person(100, "tax") + person(101, "tax")
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	b, who := newIdentityBench(t, slapd, "")
	ctx := t.Context()
	for _, id := range []string{"health", "tax"} {
		b.agency(who, id)
	}
	if d, err := who.planner.Directories(ctx, true); err != nil || len(d.Readings) != 1 || d.Readings[0].Objects != mailboxes+2 || d.Stale != "" {
		t.Fatalf("%+v, %v", d, err)
	}
	if _, err := who.planner.Import(ctx, strings.NewReader("nothing"), "r", false); err == nil {
		t.Error("a file was imported without a lab")
	} else {
		b.problem(err, http.StatusForbidden, "only in a lab")
	}

	made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	if err != nil || len(made.Lists) != 2 || made.Lists[0].Rows+made.Lists[1].Rows != mailboxes {
		t.Fatalf("%+v, %v", made, err)
	}
	file := func(i int) admin.ListFile {
		return admin.ListFile{Agency: "health", Name: made.Lists[i].ID + ".csv", Content: []byte(made.Lists[i].CSV)}
	}

	// One column is sorted by hand without the others, and the digests are lost.
	rows := strings.Split(strings.TrimSpace(made.Lists[0].CSV), "\r\n")
	mixed := "address;directory_id\n"
	for i, row := range rows[1:] {
		cells, next := strings.Split(row, ";"), strings.Split(rows[1+(i+1)%(len(rows)-1)], ";")
		mixed += cells[3] + ";" + next[4] + "\n"
	}
	bad := admin.ListFile{Agency: "health", Name: "mixed.csv", Content: []byte(mixed)}
	found, err := who.planner.CheckList(ctx, bad, admin.ReportFormat{Format: "text", Language: "de"})
	if err != nil || found.Clean || found.Crossed != 20 || len(found.Permutations) != 1 || !strings.Contains(found.Report, "ABGELEHNT: 20 von 20 Zeilen") {
		t.Fatalf("%+v, %v", found, err)
	}
	_, err = who.planner.ImportList(ctx, bad, "wave 1")
	b.problem(err, http.StatusBadRequest, "20 of 20 rows are wrong; 20 mailboxes would get another one's mail")
	// One cell is changed, and the digests are there.
	bad.Content = []byte(strings.Replace(made.Lists[0].CSV, "p0001@health.example", "p0031@health.example", 1))
	_, err = who.planner.ImportList(ctx, bad, "wave 1")
	b.problem(err, http.StatusBadRequest, "the digest is wrong")

	p, err := who.planner.ImportList(ctx, file(0), "wave 1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Kind != "list" || p.Missing != 1 || !strings.Contains(p.Text, "20 mailboxes") || !strings.Contains(p.Text, "activating it adds 20 mailboxes") {
		t.Fatalf("%+v", p)
	}
	_, err = who.operator.StartProposal(ctx, p.ID)
	b.problem(err, http.StatusForbidden, "not enough other persons")
	_, err = who.approver.ApproveTyped(ctx, p.ID, p.Digest, "yes", "")
	b.problem(err, http.StatusBadRequest, "neither the number of mailboxes nor the agency")
	_, err = who.approver.Approve(ctx, p.ID, p.Digest, "")
	b.problem(err, http.StatusBadRequest, "neither")
	if _, err = who.approver.ApproveTyped(ctx, p.ID, p.Digest, "20", ""); err != nil {
		t.Fatal(err)
	}
	_, err = who.planner.StartProposal(ctx, p.ID)
	b.problem(err, http.StatusForbidden, "is for the role")
	done, err := who.operator.StartProposal(ctx, p.ID)
	if err != nil || !strings.Contains(done.Done, "20 mailboxes, 20 of them new") {
		t.Fatalf("%+v, %v", done, err)
	}
	if d := b.gate.Address("p0001@health.example"); !d.Deliver() || d.Platform != "exchange" || d.Mailbox != mailboxID(1) {
		t.Errorf("p0001 goes to %+v", d)
	}

	// Ten mailboxes are in no list yet.
	refusal := b.cutoverCheck(t)
	if refusal.OK || !strings.Contains(refusal.Text, "p0021@health.example: no list in force names the mailbox") {
		t.Errorf("%+v", refusal)
	}
	b.activate(who, file(1))
	if c := b.cutoverCheck(t); !c.OK || !strings.Contains(c.Text, "each mailbox is in an approved list") {
		t.Errorf("%+v", c)
	}
	lists, err := who.operator.Lists(ctx, "health")
	if err != nil || len(lists.Lists) != 2 || lists.Lists[0].Standing != "active" || strings.Join(lists.Lists[1].Approved, ",") != "The approver" {
		t.Errorf("%+v, %v", lists, err)
	}

	// The directory gives one's address to another.
	change := ldap.NewModifyRequest("cn=person 5,ou=health,dc=example,dc=org", nil)
	change.Replace("mail", []string{"other@health.example"})
	change.Replace("proxyAddresses", []string{"SMTP:other@health.example"})
	write(t, slapd, func(c *ldap.Conn) error { return c.Modify(change) })
	if _, err := who.operator.Directories(ctx, true); err != nil {
		t.Fatal(err)
	}
	if c := b.cutoverCheck(t); c.OK || !strings.Contains(c.Text, "p0005@health.example: it was listed with this address, which isn't its own any more") {
		t.Errorf("%+v", c)
	}
	if d, err := who.operator.Drift(ctx, "health"); err != nil || !d.Blocks {
		t.Errorf("%+v, %v", d, err)
	}
	b.until("the alarm of the drift", func() bool { return b.alarm("drift/health") != "" })
	// The next phase takes what was approved, and no other word for it before somebody has accepted it.
	_, err = who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	b.problem(err, http.StatusConflict, "readdressed: other@health.example: a list in force has the mailbox "+mailboxID(5).String()+" with p0005@health.example, which the directory doesn't give it")
	again, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health", AcceptChanges: true})
	if err != nil || len(again.Lists) != 2 || again.Recorded != mailboxes || again.Added != 0 || len(again.Differences) != 1 {
		t.Fatalf("%+v, %v", again, err)
	}
	for _, l := range again.Lists {
		if !strings.Contains(l.CSV, "other@health.example") {
			continue
		}
		p, err := who.planner.ImportList(ctx, admin.ListFile{Agency: "health", Name: l.ID, Content: []byte(l.CSV)}, "wave 2")
		if err != nil || !strings.Contains(p.Text, "0 mailboxes are new, 1 have another address") || !strings.Contains(p.Text, "readdressed: other@health.example") {
			t.Errorf("%+v, %v", p, err)
		}
	}
	// A list in force counts no more once it is withdrawn.
	if l, err := who.planner.WithdrawList(ctx, lists.Lists[0].ID, "wrong wave"); err != nil || l.Standing != "withdrawn" {
		t.Errorf("%+v, %v", l, err)
	}
}

// cutoverCheck is what the lists say of a cutover of agency health.
func (b *bench) cutoverCheck(t *testing.T) admin.PlanCheck {
	t.Helper()
	plan, err := b.api.Plan(t.Context(), admin.PlanRequest{Kind: "cutover", Agency: "health"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range plan.Checks {
		if c.Name == "lists" {
			return c
		}
	}
	t.Fatalf("the plan has no check of lists: %+v", plan.Checks)
	return admin.PlanCheck{}
}

// alarm returns an alarm's text; empty if there is none.
func (b *bench) alarm(key string) string {
	for _, a := range b.alarms.List() {
		if a.Key == key {
			return a.Text
		}
	}
	return ""
}

// rcpt asks the node, by a connection of its own, whether it takes mail for an address.
func (b *bench) rcpt(address string) error {
	b.t.Helper()
	c, err := smtp.Dial(b.Addr("mx").String())
	if err != nil {
		b.t.Fatal(err)
	}
	defer c.Close()
	if err := errors.Join(c.Hello("client.example"), c.Mail("a@elsewhere.example")); err != nil {
		b.t.Fatal(err)
	}
	return c.Rcpt(address)
}

// What the directory has more enters by itself, within bounds and in the name of the directory;
// an address that nobody has is denied for good in a complete domain; an X.500 name finds
// its mailbox; and an agency whose lists are right is cut over.
func TestDirectoryAtWork(t *testing.T) {
	ldif := unit("health") + unit("tax")
	for n := 1; n <= 10; n++ {
		ldif += person(n, "health")
	}
	ldif += person(11, "health", "msExchRecipientTypeDetails: 4", "msExchDelegateListLink: cn=person 1,ou=health,dc=example,dc=org")
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	b, who := newIdentityBench(t, slapd, "")
	ctx := t.Context()
	b.agency(who, "health")
	refresh := func() {
		t.Helper()
		if _, err := who.operator.Directories(ctx, true); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	if m := b.replica.State().Mapping("health"); m.Len() != 0 {
		t.Fatalf("%d mailboxes entered without any list", m.Len())
	}
	activateAll := func() {
		t.Helper()
		made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range made.Lists {
			b.activate(who, admin.ListFile{Agency: "health", Name: l.ID, Content: []byte(l.CSV)})
		}
	}
	activateAll()
	refresh() // notes who is a member
	if _, ok := b.replica.State().Document("members/health/" + mailboxID(11).String()); !ok {
		t.Error("who is a member of the functional mailbox isn't in the table")
	}

	// A person who is hired, and an alias; a member who goes.
	add := func(n int) {
		t.Helper()
		request := ldap.NewAddRequest(fmt.Sprintf("cn=person %d,ou=health,dc=example,dc=org", n), nil)
		id := mailboxID(n)
		request.Attribute("objectClass", []string{"user"})
		request.Attribute("cn", []string{fmt.Sprintf("person %d", n)})
		request.Attribute("objectGUID", []string{string(id[:])})
		request.Attribute("mail", []string{fmt.Sprintf("p%04d@health.example", n)})
		request.Attribute("userAccountControl", []string{"512"})
		write(t, slapd, func(c *ldap.Conn) error { return c.Add(request) })
	}
	add(12)
	alias := ldap.NewModifyRequest("cn=person 2,ou=health,dc=example,dc=org", nil)
	alias.Add("proxyAddresses", []string{"smtp:second@health.example"})
	members := ldap.NewModifyRequest("cn=person 11,ou=health,dc=example,dc=org", nil)
	members.Replace("msExchDelegateListLink", []string{"cn=person 3,ou=health,dc=example,dc=org"})
	write(t, slapd, func(c *ldap.Conn) error { return errors.Join(c.Modify(alias), c.Modify(members)) })
	refresh()
	for address, n := range map[routing.Address]int{"p0012@health.example": 12, "second@health.example": 2} {
		if d := b.gate.Address(address); !d.Deliver() || d.Mailbox != mailboxID(n) {
			t.Errorf("%s: %+v", address, d)
		}
	}
	if text := b.alarm("members/health"); !strings.Contains(text, "cn=person 3,ou=health,dc=example,dc=org came") || !strings.Contains(text, "cn=person 1,ou=health,dc=example,dc=org went") {
		t.Errorf("alarm %q", text)
	}
	if m, err := who.operator.Members(ctx, "health", time.Time{}); err != nil || len(m.Mailboxes) != 1 || m.Mailboxes[0].Address != "p0011@health.example" || !slices.Equal(m.Mailboxes[0].Members, []string{"cn=person 3,ou=health,dc=example,dc=org"}) {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := who.operator.Members(ctx, "", time.Now().Add(-time.Hour)); err != nil || len(m.Changes) != 2 || m.Changes[0].Change != "came" || m.Changes[1].Change != "went" || m.Changes[1].Member != "cn=person 1,ou=health,dc=example,dc=org" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := who.operator.Members(ctx, "health", time.Now().Add(time.Hour)); err != nil || len(m.Changes) != 0 {
		t.Errorf("%+v, %v", m, err)
	}
	audited := new(strings.Builder)
	if _, err := b.audited(audited); err != nil || !strings.Contains(audited.String(), `"person":"directory"`) || !strings.Contains(audited.String(), "second@health.example") && !strings.Contains(audited.String(), "p0002@health.example") {
		t.Errorf("audit log: %v\n%s", err, audited)
	}
	// More at once than a share of the agency waits for people.
	for n := 20; n < 27; n++ {
		add(n)
	}
	refresh()
	if d := b.gate.Address("p0020@health.example"); d.Deliver() {
		t.Error("seven of twelve entered at once")
	}
	if text := b.alarm("directory-additions/health"); !strings.Contains(text, "7 mailboxes") {
		t.Errorf("alarm %q", text)
	}

	say := b.dialogue()
	say("", 220)
	say("EHLO client.example", 250)
	say("MAIL FROM:<a@elsewhere.example>", 250)
	say("RCPT TO:<nobody@health.example>", 451)
	b.agreed(who, admin.NewProposal{Kind: "complete-domain", Domain: "health.example", Reason: "all are in"})
	for _, rcpt := range []string{"nobody@health.example", "nobody+detail@health.example"} {
		b.until(rcpt+" to be denied", func() bool { // put off, if table or directory are slow to answer
			err := b.rcpt(rcpt)
			p, ok := errors.AsType[*textproto.Error](err)
			if !ok || p.Code != 451 && p.Code != 550 {
				t.Fatalf("%s: %v", rcpt, err)
			}
			return p.Code == 550
		})
	}
	say("RCPT TO:<p0020@health.example>", 451) // the directory has it
	say("RCPT TO:<IMCEAEX-_o=Org_ou=First+20Group_cn=Recipients_cn=P0003@health.example>", 250)
	say("RCPT TO:<IMCEAEX-_o=Org_ou=First+20Group_cn=Recipients_cn=nobody@health.example>", 451)
	slapd.Stop()
	say("RCPT TO:<nobody.else@health.example>", 451) // a directory that can't be asked proves nothing
	if err := slapd.Start(ctx); err != nil {
		t.Fatal(err)
	}
	refresh()

	// Lists again, for those who came; then the cutover.
	activateAll()
	refresh()
	b.arm()
	a, err := who.operator.Agency(ctx, "health")
	if err != nil {
		t.Fatal(err)
	}
	p, err := who.operator.Propose(ctx, admin.NewProposal{Kind: "cutover", Agency: "health", ExpectedEpoch: a.Epoch, Reason: "wave 1"})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	if _, err := who.approver.Approve(ctx, p.ID, p.Digest, ""); err != nil {
		t.Fatal(err)
	}
	started, err := who.operator.StartProposal(ctx, p.ID)
	if err != nil || started.Operation == nil {
		t.Fatalf("%+v, %v", started, err)
	}
	b.until("the mailbox on its target", func() bool {
		d := b.gate.Address("p0020@health.example")
		return d.Deliver() && d.Platform == "ox"
	})
	b.until("the operation's end", func() bool {
		op, err := who.operator.Operation(ctx, started.Operation.ID)
		return err == nil && op.Ended
	})
	// The way back is only informed of what the lists lack.
	add(30)
	refresh()
	plan, err := who.operator.Plan(ctx, admin.PlanRequest{Kind: "rollback", Agency: "health"})
	if err != nil || plan.Refused {
		t.Errorf("%+v, %v", plan, err)
	}
}

// A mailbox that the directory doesn't know any more keeps its agency from being cut over, until
// people take it out.
func TestRetire(t *testing.T) {
	ldif := unit("health") + unit("tax")
	for n := 1; n <= 3; n++ {
		ldif += person(n, "health")
	}
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	b, who := newIdentityBench(t, slapd, "")
	ctx := t.Context()
	b.agency(who, "health")
	a, err := who.planner.Agency(ctx, "health")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := who.operator.Directories(ctx, true); err != nil {
		t.Fatal(err)
	}
	made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	if err != nil || len(made.Lists) != 1 {
		t.Fatalf("%+v, %v", made, err)
	}
	b.activate(who, admin.ListFile{Agency: "health", Name: "1", Content: []byte(made.Lists[0].CSV)})
	b.arm()
	retire := admin.NewProposal{Kind: "retire", Agency: "health", ExpectedEpoch: a.Epoch, Reason: "left"}
	_, err = who.operator.Propose(ctx, retire)
	b.problem(err, http.StatusConflict, "the directory knows all of its mailboxes")
	// One is deleted; of another only the mailbox is taken away, as by Disable-Mailbox.
	write(t, slapd, func(c *ldap.Conn) error {
		without := ldap.NewModifyRequest("cn=person 3,ou=health,dc=example,dc=org", nil)
		without.Replace("mail", nil)
		without.Replace("proxyAddresses", nil)
		return errors.Join(c.Modify(without), c.Del(ldap.NewDelRequest("cn=person 2,ou=health,dc=example,dc=org", nil)))
	})
	if _, err := who.operator.Directories(ctx, true); err != nil {
		t.Fatal(err)
	}
	if c := b.cutoverCheck(t); c.OK || !strings.Contains(c.Text, "p0002@health.example: the directory doesn't know the mailbox any more") {
		t.Errorf("%+v", c)
	}
	p, err := who.operator.Propose(ctx, retire)
	if err != nil || !strings.Contains(p.Text, "p0002@health.example, mailbox "+mailboxID(2).String()) || !strings.Contains(p.Text, "p0003@health.example, mailbox ") {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := who.approver.Approve(ctx, p.ID, p.Digest, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := who.operator.StartProposal(ctx, p.ID); err != nil {
		t.Fatal(err)
	}
	b.until("the mailbox gone", func() bool {
		d := b.gate.Address("p0002@health.example")
		other := b.gate.Address("p0001@health.example")
		return d.Reason == routing.ReasonNoSuchName && other.Deliver()
	})
	if c := b.cutoverCheck(t); !c.OK {
		t.Errorf("%+v", c)
	}
}

// Directories come, change and go by a reload.
func TestReloadDirectories(t *testing.T) {
	ldif := unit("health") + unit("tax")
	for n := 1; n <= 10; n++ {
		ldif += person(n, "health")
	}
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif})
	b, who := newIdentityBench(t, slapd, "")
	ctx := t.Context()
	b.agency(who, "health")
	reload := func(change func(string) string) {
		t.Helper()
		text, err := os.ReadFile(b.path)
		if err == nil {
			err = os.WriteFile(b.path, []byte(change(string(text))), 0o600)
		}
		if err == nil {
			_, err = b.Reload(ctx)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lists := func(want int) {
		t.Helper()
		made, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health", Refresh: true})
		if err != nil || len(made.Lists) != want {
			t.Fatalf("%d lists, %v; want %d", len(made.Lists), err, want)
		}
	}
	lists(1)
	before := b.desk()
	reload(func(s string) string { return s }) // nothing changes, so what was read stays
	if b.desk() != before {
		t.Error("the same settings read the directories anew")
	}
	reload(func(s string) string { return strings.Replace(s, "list_rows: 20", "list_rows: 5", 1) })
	lists(2)
	slapd.Stop()
	if _, err := who.operator.Directories(ctx, true); err == nil {
		t.Error("a directory that is away was read")
	}
	if b.alarm("directory-unread") == "" {
		t.Errorf("no alarm: %+v", b.alarms.List())
	}
	reload(func(s string) string { return s[:strings.Index(s, "identity:")] })
	_, err := who.planner.Generate(ctx, admin.NewLists{Agency: "health"})
	b.problem(err, http.StatusConflict, "no directories are configured")
	if text := b.alarm("directory-unread"); text != "" {
		t.Errorf("alarm of a directory that isn't configured any more: %s", text)
	}
	b.arm()
	if c := b.cutoverCheck(t); c.OK || !strings.Contains(c.Text, "only in a lab") {
		t.Errorf("%+v", c)
	}
}

// audited writes the audit log as it is exported.
func (b *bench) audited(w *strings.Builder) (int, error) {
	files, err := filepath.Glob(filepath.Join(filepath.Dir(b.path), "data", "audit", "*"))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return 0, err
		}
		w.Write(text)
	}
	return w.Len(), nil
}
