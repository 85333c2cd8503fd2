package incident

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"mailcutover/admin"
	"mailcutover/internal/alarm"
)

var (
	from = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)
	to   = from.Add(24 * time.Hour)
)

const hostile = `=cmd|'/c calc'!A1"><script>alert(1)</script>` + "\r\nnext"

func material() *Material {
	closed, opened := from.Add(time.Hour), from.Add(time.Hour+2*time.Second)
	return &Material{
		Agency: admin.Agency{ID: "health"}, From: from, To: to, Made: to.Add(time.Hour), By: "Dora DPO", Reason: hostile, Node: "mx1", Program: "1.0",
		Records: admin.IncidentRecords{
			Nodes: []admin.IncidentNode{
				{Node: "mx1", Head: "mx1/c/2/00", Records: []admin.IncidentRecord{
					{Number: 1, Node: "mx1", Time: from.Add(time.Minute), Person: "Anna", What: "cutover", Subject: "agency health", Reason: hostile, Before: "phase=source"},
					{Number: 2, Node: "mx1", Time: from.Add(2 * time.Minute), Person: "Anna", What: "freeze", Subject: "agency tax"},
				}, Alarms: []alarm.Alarm{{Key: "verify/health", Text: "crossed", Since: from.Add(3 * time.Minute)}}},
			},
			Missing: []admin.Missing{{Node: "mx2", Error: "no answer"}},
		},
		Operations: []admin.Operation{
			{ID: "op-1", Kind: "cutover", Agency: "health", Person: "Anna", Step: "done", Ended: true, Started: from.Add(30 * time.Minute), Closed: &closed, Opened: &opened, Agencies: []string{"health"}},
			{ID: "op-0", Kind: "rollback", Agency: "health", Ended: true, Started: from.Add(-48 * time.Hour), Opened: func() *time.Time { t := from.Add(-47 * time.Hour); return &t }()},
		},
		Lists:    admin.BatchLists{Lists: []admin.BatchList{{ID: "L1", Mailboxes: 2, Standing: "active", Since: from.Add(10 * time.Minute), Digest: strings.Repeat("ab", 32), Approved: []string{"Carl"}}}},
		Recalls:  admin.Recalls{Recalls: []admin.Recall{{ID: "health-1", Kind: "recall", Begun: from.Add(5 * time.Hour), Totals: admin.RecallTotals{Delivered: 5, DeliveredBack: 4, NotBack: 1}}}},
		Verify:   &admin.Verification{Last: &admin.VerificationOutcome{}},
		Findings: []admin.Finding{{ID: "f1", Kind: "crossed", State: "found", Mailbox: "id-bob", Address: "bob@health.example", Owner: "id-eve", OwnerAddress: "eve@health.example", Messages: 3, First: from.Add(6 * time.Hour)}},
	}
}

func write(t *testing.T, path string) Manifest {
	t.Helper()
	w, err := New(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		d := admin.Delivery{
			Time: from.Add(time.Duration(i) * time.Hour), Node: "mx1", Transaction: fmt.Sprint("t", i), Agency: "health", Mailbox: "id-anna", Epoch: "1.2", Mapping: strings.Repeat("cd", 32),
			From: "s@out.example", Recipient: "anna@health.example", MessageID: hostile, Size: 100, Platform: []string{"exchange", "ox"}[i%2], Result: "delivered", Code: 250, Answer: "ok",
		}
		if i == 4 {
			d.From, d.Mailbox, d.Recipient = "", "id-bob", "bob@health.example"
		}
		if err := w.Delivery(&d); err != nil {
			t.Fatal(err)
		}
	}
	m, err := w.Finish(material(), &admin.Manifest{Agency: "health", Rows: 5, Missing: []admin.Missing{{Node: "mx2", Error: "from 08:00 on: no answer"}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// checkSums holds the files to the manifest.
func checkSums(t *testing.T, files fs.FS) Manifest {
	t.Helper()
	b, err := fs.ReadFile(files, ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	named := map[string]bool{ManifestName: true}
	for _, f := range m.Files {
		named[f.Name] = true
		b, err := fs.ReadFile(files, f.Name)
		sum := sha256.Sum256(b)
		if err != nil || int64(len(b)) != f.Bytes || hex.EncodeToString(sum[:]) != f.SHA256 {
			t.Errorf("%s: %d bytes, %v", f.Name, len(b), err)
		}
		if strings.HasSuffix(f.Name, ".csv") {
			rows, err := csv.NewReader(bytes.NewReader(b)).ReadAll()
			if err != nil || len(rows) < 2 {
				t.Errorf("%s: %d rows, %v", f.Name, len(rows), err)
			}
			for _, cell := range strings.Split(string(b), ",") {
				if strings.HasPrefix(strings.Trim(cell, `"`), "=") {
					t.Errorf("%s: the cell %q is a formula", f.Name, cell)
				}
			}
		}
	}
	if err := fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !named[name] {
			t.Errorf("%s isn't in the manifest", name)
		}
		return err
	}); err != nil {
		t.Error(err)
	}
	return m
}

func TestDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	write(t, dir)
	m := checkSums(t, os.DirFS(dir))
	if m.Complete || len(m.Missing) != 2 || len(m.Files) != 15 || m.Heads[0] != "mx1/c/2/00" {
		t.Errorf("manifest %+v", m)
	}
	var line []Moment
	b, err := os.ReadFile(filepath.Join(dir, "timeline.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &line); err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, one := range line {
		got = append(got, fmt.Sprint(one.What, " ", one.Ours))
		if i > 0 && one.Time.Before(line[i-1].Time) {
			t.Errorf("%v is before %v", one, line[i-1])
		}
	}
	if want := "cutover true,freeze false,alarm true,list active true,cutover started true,cutover closed true,cutover opened true,recall true,finding crossed true"; strings.Join(got, ",") != want {
		t.Errorf("time line %s\nwant %s", strings.Join(got, ","), want)
	}
	if b, err = os.ReadFile(filepath.Join(dir, "mailboxes.csv")); err != nil || !strings.Contains(string(b), "id-bob,bob@health.example,1,100,exchange,") || !strings.Contains(string(b), "id-eve,eve@health.example,0,0,,,,1") || !strings.Contains(string(b), "id-anna,anna@health.example,4,400,exchange ox,") {
		t.Errorf("mailboxes\n%s %v", b, err)
	}
	for name, words := range map[string][]string{
		"summary.en.html": {"5 messages were handed over", "3 mailboxes were concerned", "2 senders wrote to them", "null sender", "node mx2 did not answer for deliveries", "cutover", "4 messages came back", "crossed"},
		"summary.de.html": {"5 Nachrichten wurden übergeben", "Was fehlt", "leerer Absender", "Umschaltung", "Vermutlich von", "vertauscht"},
	} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, word := range words {
			if !strings.Contains(string(b), word) {
				t.Errorf("%s lacks %q", name, word)
			}
		}
		if _, err := html.Parse(bytes.NewReader(b)); err != nil || strings.Contains(string(b), "<script") {
			t.Errorf("%s: a script, or %v", name, err)
		}
		for _, m := range regexp.MustCompile(`(?:src|href|url)\s*[=(]`).FindAllString(string(b), -1) {
			t.Errorf("%s leads elsewhere: %s", name, m)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := New(dir); !errors.Is(err, os.ErrExist) {
		t.Errorf("an export was written over: %v", err)
	}
}

// Every text of the summary has its German.
func TestTextsInGerman(t *testing.T) {
	for _, m := range regexp.MustCompile(`\{\{t "([^"]+)"\}\}`).FindAllStringSubmatch(summaryText, -1) {
		if germanTexts[m[1]] == "" {
			t.Errorf("%q has no German", m[1])
		}
	}
}

func TestZip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out.zip")
	write(t, path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	checkSums(t, files)
}

// What isn't whole isn't there.
func TestDiscarded(t *testing.T) {
	for _, name := range []string{"out", "out.zip"} {
		dir := t.TempDir()
		w, err := New(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Delivery(&admin.Delivery{Time: from}); err != nil {
			t.Fatal(err)
		}
		if err := w.Discard(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%v is left, %v", left, err)
		}
	}
}
