package ldapdir

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/identity/directory"
	"mailcutover/routing"
	"mailcutover/test/peers"
)

// user returns an entry as Active Directory has one, and its id.
func user(n int, more ...string) (string, routing.MailboxID) {
	id := routing.MailboxID{1, byte(n), byte(n >> 8), byte(n >> 16), 0xff, '*', ')', '(', '\\', 0, 7}
	lines := []string{
		fmt.Sprintf("dn: cn=user %d,ou=people,dc=example,dc=org", n), "objectClass: user", fmt.Sprintf("cn: user %d", n),
		"objectGUID:: " + base64.StdEncoding.EncodeToString(id[:]),
		fmt.Sprintf("sAMAccountName: u%05d", n), fmt.Sprintf("userPrincipalName: u%05d@corp.example", n),
		fmt.Sprintf("mail: User.%05d@agency.example", n), fmt.Sprintf("proxyAddresses: SMTP:user.%05d@agency.example", n),
		fmt.Sprintf("proxyAddresses: smtp:u%05d@old.example", n), "userAccountControl: 512",
	}
	lines = append(lines, more...)
	slices.SortStableFunc(lines[1:], func(a, b string) int { // slapadd wants the values of an attribute together
		a, _, _ = strings.Cut(a, ":")
		b, _, _ = strings.Cut(b, ":")
		return strings.Compare(a, b)
	})
	return strings.Join(lines, "\n") + "\n\n", id
}

const people = "dn: ou=people,dc=example,dc=org\nobjectClass: organizationalUnit\nou: people\n\n"

func options(servers ...string) Options {
	return Options{
		Name: "ad", Servers: servers, Base: "dc=example,dc=org", Map: Presets()["ad"], Domain: "CORP",
		BindDN: peers.SlapdAdmin, Password: func() (string, error) { return peers.SlapdPassword, nil },
	}
}

func newClient(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func readAll(ctx context.Context, c *Client) (map[string]directory.Object, directory.Snapshot, error) {
	all := make(map[string]directory.Object)
	s, err := c.Read(ctx, func(o *directory.Object) error { all[o.DN] = *o; return nil })
	return all, s, err
}

func TestActiveDirectory(t *testing.T) {
	first, id := user(1, "legacyExchangeDN: /o=Org/cn=Recipients/cn=u1", "proxyAddresses: X500:/o=Old/cn=u1", "proxyAddresses: SIP:u1@sip.example",
		"proxyAddresses: smtp:not an address", "memberOf: cn=all,ou=people,dc=example,dc=org", "department: 4711")
	disabled, _ := user(2, "msExchRecipientTypeDetails: 4", "targetAddress: SMTP:moved@ox.example", "deliverAndRedirect: TRUE")
	room, _ := user(3, "msExchRecipientTypeDetails: 16")
	group := "dn: cn=all,ou=people,dc=example,dc=org\nobjectClass: group\ncn: all\nmail: all@agency.example\nmember: cn=user 1,ou=people,dc=example,dc=org\n\n"
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: people + first + strings.Replace(disabled, "512", "514", 1) + room + group})
	o := options("ldap://" + s.Addr)
	o.Page, o.Extra = 2, []string{"Department"}
	c := newClient(t, o)
	all, snapshot, err := readAll(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 4 || snapshot.Objects != 4 || snapshot.Digest.IsZero() {
		t.Fatalf("read %d objects, snapshot %+v", len(all), snapshot)
	}
	u := all["cn=user 1,ou=people,dc=example,dc=org"]
	if u.ID != id || u.Primary() != "user.00001@agency.example" || len(u.Addresses) != 2 || u.Account != "u00001" || u.UPN != "u00001@corp.example" ||
		u.Kind != directory.KindUser || !u.Enabled || u.Domain != "CORP" || fmt.Sprint(u.Attributes) != "map[department:[4711]]" {
		t.Errorf("user: %+v", u)
	}
	if want := []string{"/o=Old/cn=u1", "/o=Org/cn=Recipients/cn=u1"}; !slices.Equal(u.X500, want) {
		t.Errorf("X.500 names %q", u.X500)
	}
	if len(u.Problems) != 1 || !strings.Contains(u.Problems[0], "not an address") {
		t.Errorf("problems %q", u.Problems)
	}
	d := all["cn=user 2,ou=people,dc=example,dc=org"]
	if d.Enabled || d.Kind != directory.KindShared || d.Target != "moved@ox.example" || !d.Redirect {
		t.Errorf("disabled shared mailbox: %+v", d)
	}
	if k := all["cn=user 3,ou=people,dc=example,dc=org"].Kind; k != directory.KindRoom {
		t.Errorf("room: %v", k)
	}
	g := all["cn=all,ou=people,dc=example,dc=org"]
	if g.Kind != directory.KindGroup || len(g.Members) != 1 || !g.ID.IsZero() || len(g.Problems) != 1 {
		t.Errorf("group: %+v", g)
	}
	for name, q := range map[string]directory.Query{
		"primary":      {Address: "user.00001@agency.example"},
		"alias":        {Address: "u00001@old.example"},
		"id":           {ID: id},
		"account":      {Login: `CORP\u00001`},
		"upn":          {Login: "u00001@corp.example"},
		"dn":           {DN: "cn=user 1,ou=people,dc=example,dc=org"},
		"legacy":       {X500: "/o=Org/cn=Recipients/cn=u1"},
		"x500 address": {X500: "/o=Old/cn=u1"},
	} {
		if found, err := c.Find(t.Context(), q); err != nil || len(found) != 1 || found[0].ID != id {
			t.Errorf("find by %s: %+v, %v", name, found, err)
		}
	}
	for name, q := range map[string]directory.Query{
		"unknown":     {Address: "nobody@agency.example"},
		"wildcard":    {Address: "*@agency.example"},
		"injection":   {Login: "*)(uid=*))(|(uid=*"},
		"another":     {Login: `\00`},
		"unknown dn":  {DN: "cn=nobody,dc=example,dc=org"},
		"other order": {ID: routing.MailboxID{byte(1)}},
	} {
		if found, err := c.Find(t.Context(), q); err != nil || len(found) != 0 {
			t.Errorf("find %s: %+v, %v", name, found, err)
		}
	}
	if _, err := c.Find(t.Context(), directory.Query{}); err == nil {
		t.Error("nothing was asked for, and answered")
	}
}

// A result that the server cut is not the directory.
func TestACutResultIsAnError(t *testing.T) {
	var ldif strings.Builder
	ldif.WriteString(people)
	for i := range 50 {
		entry, _ := user(i)
		ldif.WriteString(entry)
	}
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif.String(), Settings: []string{"limits users size.soft=20 size.hard=20 size.pr=20 size.prtotal=20"}})
	o := options("ldap://" + s.Addr)
	o.Page = 7
	all, _, err := readAll(t.Context(), newClient(t, o)) // the administrator has no limits
	if err != nil || len(all) != 50 {
		t.Fatalf("%d objects, %v", len(all), err)
	}
	o.BindDN, o.Password = "", nil
	limited := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif.String(), Settings: []string{"limits * size.soft=20 size.hard=20 size.prtotal=20"}})
	for _, page := range []int{7, 500} {
		o.Servers, o.Page = []string{"ldap://" + limited.Addr}, page
		if got, _, err := readAll(t.Context(), newClient(t, o)); !errors.Is(err, directory.ErrIncomplete) {
			t.Errorf("pages of %d: %d of 50 objects, %v; want ErrIncomplete", page, len(got), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	o.Servers, o.Page = []string{"ldap://" + s.Addr}, 5
	_, err = newClient(t, o).Read(ctx, func(*directory.Object) error {
		if n++; n == 7 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, directory.ErrIncomplete) {
		t.Errorf("cancelled in the middle: %v", err)
	}
	cancel()
	if _, err := newClient(t, o).Find(ctx, directory.Query{Address: "user.00001@agency.example"}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("asked with a context that has ended: %v", err)
	}
}

func TestFailover(t *testing.T) {
	t.Parallel() // it waits for a server that never answers
	entry, id := user(1)
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: people + entry})
	addr := fmt.Sprintf("127.0.0.1:%d", peers.Port(t)) // nobody listens there
	silent, err := net.Listen("tcp", "127.0.0.1:0")    // accepts, and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	o := options("ldap://"+addr, "ldap://"+silent.Addr().String(), "ldap://"+s.Addr)
	o.Timeout = 5 * time.Second // which the last server never needs
	c := newClient(t, o)
	q := directory.Query{ID: id}
	for range 2 {
		if found, err := c.Find(t.Context(), q); err != nil || len(found) != 1 {
			t.Fatalf("%+v, %v", found, err)
		}
	}
	// A connection that the server closed is not the end.
	s.Stop()
	if _, err := c.Find(t.Context(), q); !errors.Is(err, ErrUnavailable) {
		t.Errorf("with no server: %v", err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if found, err := c.Find(t.Context(), q); err != nil || len(found) != 1 {
		t.Errorf("after a restart: %+v, %v", found, err)
	}
}

func TestSettings(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no server":      {func(o *Options) { o.Servers = nil }, "servers"},
		"plain text":     {func(o *Options) { o.Servers = []string{"ldap://dc1.example.org"} }, "plain text"},
		"no scheme":      {func(o *Options) { o.Servers = []string{"dc1.example.org"} }, "ldaps://HOST:PORT"},
		"base":           {func(o *Options) { o.Base = "example.org" }, "want a DN"},
		"filter":         {func(o *Options) { o.Map.Filter = "mail=*" }, "filter"},
		"page":           {func(o *Options) { o.Page = 5000 }, "1 to 1000"},
		"no password":    {func(o *Options) { o.Password = nil }, "password"},
		"no id":          {func(o *Options) { o.Map.ID = "" }, "directory id"},
		"no form":        {func(o *Options) { o.Map.IDForm = "" }, "id form"},
		"no mail at all": {func(o *Options) { o.Map.Mail, o.Map.Aliases = "", nil }, "addresses"},
	} {
		o := options("ldap://127.0.0.1:389")
		c.change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// An empty password would be an anonymous bind that succeeds.
	entry, _ := user(1)
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: people + entry})
	for _, password := range []string{"", "wrong"} {
		o := options("ldap://" + s.Addr)
		o.Password = func() (string, error) { return password, nil }
		if _, err := newClient(t, o).Find(t.Context(), directory.Query{Login: "u00001"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("password %q: %v", password, err)
		}
	}
}

// A whole administration is read page by page, and none of it is kept.
func TestFortyThousand(t *testing.T) {
	var ldif strings.Builder
	ldif.WriteString(people)
	const n = 40_000
	for i := range n {
		entry, _ := user(i)
		ldif.WriteString(entry)
	}
	s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif.String()})
	c := newClient(t, options("ldap://"+s.Addr))
	ids := make(map[routing.MailboxID]bool, n)
	read := func() directory.Snapshot {
		snapshot, err := c.Read(t.Context(), func(o *directory.Object) error {
			ids[o.ID] = true
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return snapshot
	}
	first := read()
	if first.Objects != n || len(ids) != n {
		t.Errorf("%d objects with %d ids", first.Objects, len(ids))
	}
	t.Logf("read in %s", first.Ended.Sub(first.Began))
}

// Many objects are asked for by their ids, over more than one search, and a search that the server
// cuts is an error. Where their mail is forwarded to stands in them.
func TestFindIDs(t *testing.T) {
	var ldif strings.Builder
	ldif.WriteString(people)
	var ids []routing.MailboxID
	for i := range 250 {
		entry, id := user(i, "msExchGenericForwardingAddress: smtp:moved@agency.example", "altRecipient: cn=user 1,ou=people,dc=example,dc=org")
		ldif.WriteString(entry)
		ids = append(ids, id)
	}
	ids = append(ids, routing.MailboxID{7, 7, 7}) // nobody's
	for limit, fits := range map[string]bool{"sizelimit 1000": true, "sizelimit 20": false} {
		s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif.String(), Settings: []string{limit, `access to * by * read`}})
		o := options("ldap://" + s.Addr)
		o.BindDN, o.Password = "", nil // no limit counts for who may do everything
		c := newClient(t, o)
		found, err := c.FindIDs(t.Context(), ids)
		if (err == nil) != fits || fits && len(found) != 250 || !fits && len(found) > 0 {
			t.Fatalf("%s: %d objects, %v", limit, len(found), err)
		}
		seen := make(map[routing.MailboxID]bool)
		for i := range found {
			seen[found[i].ID] = true
			if o := &found[i]; !slices.Equal(o.Forwards, []string{"moved@agency.example"}) || o.Forward != "cn=user 1,ou=people,dc=example,dc=org" {
				t.Fatalf("%+v", o)
			}
		}
		if fits && (len(seen) != 250 || !c.ShowsForwards()) {
			t.Errorf("%d different ones", len(seen))
		}
	}
}

// A server that refers to another one for a part of the directory has not said what is in it, though
// the search ends well. Those parts of a forest count for nothing in which there are no mailboxes.
func TestAReferenceIsNoWholeAnswer(t *testing.T) {
	entry, id := user(1)
	for ref, whole := range map[string]bool{
		"ldap://dc.child.example.org/ou=child,dc=example,dc=org":                       false,
		"ldap://ForestDnsZones.example.org/DC=ForestDnsZones,DC=example,DC=org":        true,
		"ldap://DomainDnsZones.example.org/DC=DomainDnsZones,DC=example,DC=org??base":  true,
		"ldap://example.org/CN=Configuration,DC=example,DC=org":                        true,
		"ldap://other.example.org/OU=CN=Configuration,DC=child,DC=example,DC=org??sub": false,
	} {
		s := peers.StartSlapd(t, peers.SlapdOptions{LDIF: people + entry + "dn: ou=child,dc=example,dc=org\nobjectClass: referral\nobjectClass: extensibleObject\nou: child\nref: " + ref + "\n\n"})
		c := newClient(t, options("ldap://"+s.Addr))
		all, _, err := readAll(t.Context(), c)
		if whole && (err != nil || len(all) != 1) || !whole && !errors.Is(err, directory.ErrIncomplete) {
			t.Errorf("%s: %d objects, %v", ref, len(all), err)
		}
		found, err := c.Find(t.Context(), directory.Query{Address: "nobody@agency.example"})
		if (err == nil) != whole || len(found) > 0 {
			t.Errorf("%s: nobody is %v, %v", ref, found, err)
		}
		if found, err := c.FindIDs(t.Context(), []routing.MailboxID{id}); (err == nil) != whole || whole && len(found) != 1 {
			t.Errorf("%s: %d objects by id, %v", ref, len(found), err)
		}
	}
}

// OpenLDAP's mail may have several values, in any order: all are the object's, and somebody is told
// that none of them is the primary one by right.
func TestSeveralAddressesInOneAttribute(t *testing.T) {
	c := newClient(t, Options{Name: "ldap", Servers: []string{"ldap://127.0.0.1:1"}, Base: "dc=example,dc=org", Map: Presets()["openldap"]})
	o := c.object(ldap.NewEntry("uid=a,dc=example,dc=org", map[string][]string{
		"objectClass": {"inetOrgPerson"}, "entryUUID": {"6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2"},
		"mail": {"a@health.example", "a.berg@health.example", "no address"}, "uid": {"a", "berg"},
	}))
	if want := []routing.Address{"a@health.example", "a.berg@health.example"}; !slices.Equal(o.Addresses, want) {
		t.Errorf("addresses %q, want %q", o.Addresses, want)
	}
	text := strings.Join(o.Problems, "; ")
	for _, want := range []string{"3 values of mail", "2 values of uid", "no address"} {
		if !strings.Contains(text, want) {
			t.Errorf("problems %q, want %q among them", text, want)
		}
	}
}
