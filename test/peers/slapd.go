package peers

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// SlapdOptions say what a directory has besides configs/peers/slapd.conf. Its suffix is dc=example,dc=org, with an entry, and
// with Microsoft's attributes of a mailbox beside OpenLDAP's own.
type SlapdOptions struct {
	Example  bool     // the entries of configs/peers/directory.ldif, in the place of LDIF
	LDIF     string   // entries below the suffix; loaded before the start
	CertFile string   // a server certificate (PEM): TLS by ldaps:// and StartTLS
	KeyFile  string   // its key
	CAFile   string   // the CA of client certificates, which may then bind by EXTERNAL
	Settings []string // lines of slapd.conf for the database, such as "sizelimit 100"
	Global   []string // and before it
	Host     Host
}

// Slapd is a directory server.
type Slapd struct {
	*Process
	Addr    string // host and port, plain and StartTLS
	TLSAddr string // of ldaps://; empty without a certificate
}

// SlapdAdmin and SlapdPassword are the user who may do everything.
const (
	SlapdAdmin    = "cn=admin,dc=example,dc=org"
	SlapdPassword = "a password for tests"
)

// StartSlapd starts a directory with these entries.
func StartSlapd(t TB, o SlapdOptions) *Slapd {
	t.Helper()
	Need(t, "slapd")
	dir := tempDir(t, "slapd")
	schema := filepath.Join(dir, "ad.schema")
	writeFile(t, schema, example(t, "ad.schema"))
	global, database, ok := strings.Cut(string(example(t, "slapd.conf")), "\ndatabase ")
	if !ok {
		t.Fatalf("slapd.conf has no database")
	}
	examples := []string{"slapd.conf", "ad.schema"}
	conf := []string{strings.Replace(global, "/etc/mailcutover/slapd/ad.schema", schema, 1)}
	s := &Slapd{Addr: fmt.Sprintf("%s:%d", o.Host.Address(), Port(t))}
	urls := "ldap://" + s.Addr + "/"
	if o.CertFile != "" {
		s.TLSAddr = fmt.Sprintf("%s:%d", o.Host.Address(), Port(t))
		urls += " ldaps://" + s.TLSAddr + "/"
		conf = append(conf, "TLSCertificateFile "+o.CertFile, "TLSCertificateKeyFile "+o.KeyFile)
	}
	if o.CAFile != "" {
		conf = append(conf, "TLSCACertificateFile "+o.CAFile, "TLSVerifyClient try")
	}
	conf = append(conf, o.Global...)
	conf = append(conf, "database "+strings.Replace(database, "/var/lib/directory", dir, 1), `rootdn "`+SlapdAdmin+`"`, `rootpw "`+SlapdPassword+`"`)
	conf = append(conf, o.Settings...)
	file := filepath.Join(dir, "slapd.conf")
	writeFile(t, file, []byte(strings.Join(conf, "\n")+"\n"))
	ldif := filepath.Join(dir, "entries.ldif")
	entries := []byte("dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: example\n\n" + o.LDIF)
	if o.Example {
		entries, examples = example(t, "directory.ldif"), append(examples, "directory.ldif")
	}
	writeFile(t, ldif, entries)
	slapd, err := lookPath("slapd")
	if err != nil {
		t.Fatalf("%v", err)
	}
	// A symbolic name of the same program decides what it does.
	add := exec.CommandContext(t.Context(), slapd, "-Tadd", "-q", "-f", file, "-l", ldif)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("load slapd: %v\n%s", err, out)
	}
	s.Process = startProcess(t, "slapd", s.Addr, func() *exec.Cmd {
		return o.Host.Command(slapd, "-d", "0", "-h", urls, "-f", file)
	}, examples...)
	return s
}
