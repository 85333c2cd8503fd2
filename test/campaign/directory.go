package campaign

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"mailcutover/internal/platformtest"
	"mailcutover/routing"
	"mailcutover/test/cluster"
	"mailcutover/test/peers"
)

// Directory is slapd with the people of the agencies that move, each below an organizational unit
// of its own. What is done to it says whose mailbox is whose from then on. Its methods are called by
// one goroutine for each agency.
type Directory struct {
	*peers.Slapd
	ca   *platformtest.CA
	file string // of the CA's certificate
}

// shared is the address of an agency that goes from one of its first two mailboxes to the other.
func shared(agency string) string { return "info@" + agency + ".example" }

// StartDirectory starts it. The first mailbox of each agency has the shared address.
func StartDirectory(t peers.TB, host peers.Host, agencies []string) *Directory {
	t.Helper()
	var ldif strings.Builder
	for _, id := range agencies {
		fmt.Fprintf(&ldif, "dn: ou=%s,dc=example,dc=org\nobjectClass: organizationalUnit\nou: %[1]s\n\n", id)
		for i := range mailboxes {
			fmt.Fprintf(&ldif, "dn: %s\n", nameIn(id, i+1))
			for _, a := range person(id, i+1, i == 0) {
				for _, v := range a.Vals {
					fmt.Fprintf(&ldif, "%s:: %s\n", a.Type, base64.StdEncoding.EncodeToString([]byte(v)))
				}
			}
			ldif.WriteString("\n")
		}
	}
	d := &Directory{}
	dir := peers.TempDir(t, "directory")
	var cert, key string
	var err error
	if d.ca, err = platformtest.NewCA(); err == nil {
		cert, key, d.file, err = d.ca.WriteFiles(dir, host.Address())
	}
	if err != nil {
		t.Fatalf("certificate of the directory: %v", err)
	}
	d.Slapd = peers.StartSlapd(t, peers.SlapdOptions{LDIF: ldif.String(), Host: host, CertFile: cert, KeyFile: key})
	return d
}

// nameIn is the DN of an agency's mailbox i, from 1.
func nameIn(agency string, i int) string {
	return fmt.Sprintf("cn=box %d,ou=%s,dc=example,dc=org", i, agency)
}

// person are the attributes of an agency's mailbox i, as Active Directory has them.
func person(agency string, i int, sharing bool) []ldap.Attribute {
	id, _ := routing.ParseMailboxID(cluster.MailboxID(agency, i))
	return []ldap.Attribute{
		{Type: "objectClass", Vals: []string{"user"}},
		{Type: "cn", Vals: []string{fmt.Sprintf("box %d", i)}},
		{Type: "objectGUID", Vals: []string{string(id[:])}},
		{Type: "mail", Vals: []string{cluster.Mailbox(agency, i)}},
		{Type: "proxyAddresses", Vals: names(agency, i, sharing)},
		{Type: "userAccountControl", Vals: []string{"512"}},
	}
}

// names are the addresses of a mailbox, as proxyAddresses.
func names(agency string, i int, sharing bool) []string {
	all := []string{"SMTP:" + cluster.Mailbox(agency, i)}
	if sharing {
		all = append(all, "smtp:"+shared(agency))
	}
	return all
}

// Settings are the lines of the nodes' configuration. Unless additions, nothing enters the table but
// by lists.
func (d *Directory) Settings(t peers.TB, agencies []string, additions bool) string {
	t.Helper()
	dir := peers.TempDir(t, "directory")
	files := map[string]string{"lists": "a key for lists, for the campaign\n", "bind": peers.SlapdPassword + "\n"}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatalf("settings of the directory: %v", err)
		}
	}
	rows := 0
	if additions {
		rows = 200
	}
	var b strings.Builder
	fmt.Fprintf(&b, "identity:\n  key_file: %q\n  check_every: 20s\n  check_age: 1m\n  additions: {most_rows: %d}\n  unknown: {snapshot_age: 1m}\n", filepath.Join(dir, "lists"), rows)
	fmt.Fprintf(&b, "  directories:\n    - {name: ad, servers: [\"ldaps://%s\"], tls: {ca_file: %q}, base: \"dc=example,dc=org\", bind: {dn: %q, password_file: %q}, timeout: 3s}\n  agencies:\n", d.TLSAddr, d.file, peers.SlapdAdmin, filepath.Join(dir, "bind"))
	for _, id := range agencies {
		fmt.Fprintf(&b, "    - {agency: %s, bases: [\"ou=%[1]s,dc=example,dc=org\"]}\n", id)
	}
	return b.String()
}

// Enter enters an agency's mailbox i. It may be entered even if there is an error; entering it once
// more is none.
func (d *Directory) Enter(ctx context.Context, agency string, i int) error {
	return d.write(ctx, func(c *ldap.Conn) error {
		request := ldap.NewAddRequest(nameIn(agency, i), nil)
		request.Attributes = person(agency, i, false)
		err := c.Add(request)
		if ldap.IsErrorWithCode(err, ldap.LDAPResultEntryAlreadyExists) {
			return nil
		}
		return err
	})
}

// Leave takes an agency's mailbox i out. Taking it out once more is no error.
func (d *Directory) Leave(ctx context.Context, agency string, i int) error {
	return d.write(ctx, func(c *ldap.Conn) error {
		err := c.Del(ldap.NewDelRequest(nameIn(agency, i), nil))
		if ldap.IsErrorWithCode(err, ldap.LDAPResultNoSuchObject) {
			return nil
		}
		return err
	})
}

// Share gives the shared address to one of the first two mailboxes, and takes it from the other one.
func (d *Directory) Share(ctx context.Context, agency string, to int) error {
	return d.write(ctx, func(c *ldap.Conn) error {
		for _, i := range []int{3 - to, to} { // never both
			request := ldap.NewModifyRequest(nameIn(agency, i), nil)
			request.Replace("proxyAddresses", names(agency, i, i == to))
			if err := c.Modify(request); err != nil {
				return err
			}
		}
		return nil
	})
}

// write changes the directory.
func (d *Directory) write(ctx context.Context, do func(*ldap.Conn) error) error {
	c, err := ldap.DialURL("ldaps://"+d.TLSAddr, ldap.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}), ldap.DialWithTLSConfig(&tls.Config{RootCAs: d.ca.Pool()}))
	if err != nil {
		return fmt.Errorf("change the directory: %w", err)
	}
	defer c.Close()
	c.SetTimeout(10 * time.Second)
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if err := c.Bind(peers.SlapdAdmin, peers.SlapdPassword); err != nil {
		return fmt.Errorf("change the directory: %w", err)
	}
	if err := do(c); err != nil {
		return fmt.Errorf("change the directory: %w", err)
	}
	return nil
}
