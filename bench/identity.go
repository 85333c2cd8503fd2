package main

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"mailcutover/bench/figure"
	"mailcutover/identity/ldapdir"
	"mailcutover/test/peers"
)

// identityAgencies is how many agencies the entries of the directory belong to; with 40,000
// they have 5,000 mailboxes, and 25 lists, each.
const identityAgencies = 8

// identityBase is below slapd's suffix.
const identityBase = "ou=people,dc=example,dc=org"

// identity measures reading a directory and checking all lists against it, beside ldapsearch
// reading the same.
func identity(t peers.TB, o options) figure.Part {
	peers.Need(t, "slapd", "ldapsearch")
	dir, err := os.MkdirTemp("", "mailcutover-bench-")
	if err != nil {
		t.Fatalf("directory for the bench of lists: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove directory of the bench of lists: %v", err)
		}
	})
	slapd := peers.StartSlapd(t, peers.SlapdOptions{LDIF: entries(o.entries)})
	url := "ldap://" + slapd.Addr
	ours := startChecker(t, build(t, dir, "./bench/identity"), url)
	var totals, reads, checks, searches, residents, peaks, ratio []float64
	ours.round(t) // both have met the directory once before it counts
	search(t, url)
	for i := range o.rounds {
		r := ours.round(t)
		if r.Objects != o.entries+1+identityAgencies && r.Objects != o.entries || r.Rows != o.entries {
			t.Fatalf("%d objects and %d rows of %d entries", r.Objects, r.Rows, o.entries)
		}
		read, check, searched := r.Read.Seconds(), r.Check.Seconds(), search(t, url).Seconds()
		totals, reads, checks, searches = append(totals, read+check), append(reads, read), append(checks, check), append(searches, searched)
		ratio = append(ratio, read/searched)
		residents, peaks = append(residents, r.Resident/(1<<20)), append(peaks, r.Peak/(1<<20))
		fmt.Fprintf(o.progress, "round %d of %d: read %.2f s, %d lists checked %.2f s, ldapsearch %.2f s, peak %.0f MiB\n", i+1, o.rounds, read, r.Lists, check, searched, r.Peak/(1<<20))
	}
	return figure.Part{
		Name: fmt.Sprintf("Lists of %d mailboxes checked against a directory", o.entries),
		Notes: []string{
			fmt.Sprintf("slapd with %d entries as Active Directory has them, %d agencies. A round reads all of it, page by page, keeps what a node keeps, reads the lists from CSV and checks every row; then ldapsearch reads the same attributes in pages of the same size, into /dev/null.", o.entries, identityAgencies),
			"Ratio: our reading to ldapsearch's, in the same round, median of the rounds; else to the bar. Memory: of the process that reads and checks, all readings so far.",
		},
		Figures: []figure.Figure{
			figure.New("read and check", "s", totals...).AtMost(10),
			figure.New("read", "s", reads...),
			figure.New("check", "s", checks...),
			figure.New("ldapsearch, reading the same", "s", searches...).Against(ratio),
			figure.New("memory after a round, VmRSS", "MiB", residents...),
			figure.New("peak memory, VmHWM", "MiB", peaks...),
			figure.New("peak memory, last round to first", "", peaks[len(peaks)-1]/peaks[0]).AtMost(1.25),
		},
	}
}

// entries are people of all agencies, as Active Directory has them.
func entries(n int) string {
	var b strings.Builder
	b.WriteString("dn: " + identityBase + "\nobjectClass: organizationalUnit\nou: people\n\n")
	for a := range identityAgencies {
		fmt.Fprintf(&b, "dn: ou=agency%d,%s\nobjectClass: organizationalUnit\nou: agency%d\n\n", a, identityBase, a)
	}
	for i := range n {
		id := [16]byte{byte(i * 197), byte(i >> 8), byte(i), byte(i * 31), 1, byte(i >> 16), 8: 0x8b, 15: byte(i * 7)}
		a := i % identityAgencies
		fmt.Fprintf(&b, "dn: cn=person %d,ou=agency%d,%s\nobjectClass: user\ncn: person %d\nobjectGUID:: %s\nsAMAccountName: p%06d\nuserPrincipalName: p%06d@corp.example\n",
			i, a, identityBase, i, base64.StdEncoding.EncodeToString(id[:]), i, i)
		fmt.Fprintf(&b, "mail: Given%d.Family%d@agency%d.example\nproxyAddresses: SMTP:Given%d.Family%d@agency%d.example\nproxyAddresses: smtp:p%06d@agency%d.example\nproxyAddresses: X500:/o=Org/ou=Old/cn=Recipients/cn=p%06d\n",
			i, i%997, a, i, i%997, a, i, a, i)
		fmt.Fprintf(&b, "legacyExchangeDN: /o=Org/ou=Exchange/cn=Recipients/cn=p%06d\nuserAccountControl: 512\nmsExchRecipientTypeDetails: 1\n\n", i)
	}
	return b.String()
}

// checker is the process that reads and checks.
type checker struct {
	in  io.Writer
	out *bufio.Scanner
}

// round is what the process says of one: bench/identity's Round.
type round struct {
	Objects, Lists, Rows int
	Read, Check          time.Duration
	Resident, Peak       float64
}

func startChecker(t peers.TB, program, url string) *checker {
	cmd := exec.CommandContext(t.Context(), program, "-server", url, "-base", identityBase, "-bind", peers.SlapdAdmin,
		"-password", peers.SlapdPassword, "-agencies", fmt.Sprint(identityAgencies))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatalf("start the checker: %v", err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatalf("start the checker: %v", err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the checker: %v", err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait() // killed, or at the end of its input
	})
	return &checker{in: in, out: bufio.NewScanner(out)}
}

func (c *checker) round(t peers.TB) (r round) {
	if _, err := io.WriteString(c.in, "go\n"); err != nil {
		t.Fatalf("begin a round of the checker: %v", err)
	}
	if !c.out.Scan() {
		t.Fatalf("the checker ended: %v", c.out.Err())
	}
	if err := json.Unmarshal(c.out.Bytes(), &r); err != nil {
		t.Fatalf("read the checker's figures: %v", err)
	}
	return r
}

// search has ldapsearch read what we read.
func search(t peers.TB, url string) time.Duration {
	m := ldapdir.Presets()["ad"]
	args := []string{"-x", "-LLL", "-o", "ldif-wrap=no", "-H", url, "-D", peers.SlapdAdmin, "-w", peers.SlapdPassword, "-b", identityBase,
		"-E", "pr=500/noprompt", m.Filter, "objectClass", m.ID, m.Mail, m.UPN, m.Account, m.LegacyDN, m.Target, m.Forward, m.Redirect, m.Control, m.RecipientType, m.Groups}
	args = append(append(append(args, m.Aliases...), m.Members...), m.Forwards...)
	began := time.Now()
	cmd := exec.CommandContext(t.Context(), "ldapsearch", args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint // its output goes to /dev/null
	if err := cmd.Run(); err != nil {
		t.Fatalf("ldapsearch: %v\n%s", err, &complaint)
	}
	return time.Since(began)
}
