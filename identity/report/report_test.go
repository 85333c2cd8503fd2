package report

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailcutover/identity/check"
	"mailcutover/identity/directory"
	"mailcutover/identity/list"
	"mailcutover/routing"
)

var update = flag.Bool("update", false, "write the golden files again")

// office is a directory of twelve mailboxes, their right list, and its check after change.
func office(change func(*list.List)) *check.Result {
	facts := check.NewFacts("ad", time.Date(2026, 3, 1, 21, 4, 0, 0, time.UTC))
	l := &list.List{ID: "health-0001-beef", Agency: "health"}
	for i, name := range []string{"anna", "bert", "carla", "dirk", "elif", "frank", "gerd", "hanna", "ines", "jan", "kim", "lena"} {
		o := &directory.Object{ID: routing.MailboxID{byte(i * 37 % 16), 1}, Kind: directory.KindUser, Enabled: i != 11, Account: fmt.Sprint("k", i*5%12, name)}
		o.Addresses = []routing.Address{routing.Address(name + "@health.example"), routing.Address(name[:1] + "@health.example")}
		facts.Add(o, "health")
		l.Rows = append(l.Rows, list.Row{Line: i + 2, Address: o.Primary(), Account: o.Account, ID: o.ID, Agency: "health"})
	}
	l.Rows = l.Rows[:11]
	change(l)
	return check.Check(check.Input{List: l, Source: facts})
}

var cases = map[string]func(*list.List){
	"right":   func(*list.List) {},
	"damaged": func(*list.List) {},
	"warning": func(l *list.List) {
		l.Rows[2].Address = "c@health.example"
	},
	"sorted": func(l *list.List) {
		var accounts []string
		for _, r := range l.Rows {
			accounts = append(accounts, r.Account)
		}
		slices.Sort(accounts)
		for i := range l.Rows {
			l.Rows[i].Account = accounts[i]
		}
	},
	"swapped": func(l *list.List) {
		l.Rows[3].ID, l.Rows[8].ID = l.Rows[8].ID, l.Rows[3].ID
		l.Rows[5].Agency = "labour"
		l.Rows = append(l.Rows, list.Row{Line: 13, Address: "nobody@health.example", ID: routing.MailboxID{99}, Agency: "health"})
	},
}

// damaged is a file whose rows are right as far as they could be read.
func damaged(t *testing.T) *list.Problems {
	t.Helper()
	_, err := list.Read([]byte("address;directory_id;agency\nanna@health.example;d02a1f6b4e3c5a4f8b6c7d8e9fa0b1c2;health\n=A1;;health\nbert@tax.example;00000000-0000-0000-0000-0000000000b0;tax\n"), list.Options{Agency: "health"})
	var problems *list.Problems
	if !errors.As(err, &problems) || problems.Total != 3 {
		t.Fatalf("%v", err)
	}
	return problems
}

func TestReports(t *testing.T) {
	headers := list.Headers{Address: "E-Mail", Account: "Accountname", ID: "objectGUID"}
	for name, change := range cases {
		r := office(change)
		var problems *list.Problems
		if name == "damaged" {
			problems = damaged(t)
		}
		for _, l := range []Language{English, German} {
			o := Options{Language: l, Headers: headers, Source: name + ".csv", Samples: 3, Problems: problems}
			for kind, write := range map[string]func(*bytes.Buffer) error{
				"txt":  func(b *bytes.Buffer) error { return Text(b, r, o) },
				"html": func(b *bytes.Buffer) error { return HTML(b, r, o) },
				"csv":  func(b *bytes.Buffer) error { return CSV(b, r, o) },
			} {
				var got bytes.Buffer
				if err := write(&got); err != nil {
					t.Fatal(err)
				}
				golden := filepath.Join("testdata", fmt.Sprintf("%s.%s.%s", name, l, kind))
				if *update {
					if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(golden)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.Bytes(), want) {
					t.Errorf("%s differs; run with -update and read the difference", golden)
				}
				if kind == "csv" {
					c := csv.NewReader(&got)
					c.Comma = ';'
					if records, err := c.ReadAll(); err != nil || problems == nil && len(records) != len(r.Rows)+1 {
						t.Errorf("%s: %d records, %v", golden, len(records), err)
					}
				}
			}
		}
		var text bytes.Buffer
		if err := JSON(&text, r, Options{}); err != nil {
			t.Fatal(err)
		}
		var back map[string]any
		if err := json.Unmarshal(text.Bytes(), &back); err != nil {
			t.Error(err)
		}
	}
}

// What a file says can't control where it is shown.
func TestTextsFromFilesAreHarmless(t *testing.T) {
	r := office(cases["sorted"])
	for i := range r.Rows {
		r.Rows[i].Row.Account = "=cmd|' /C calc'!A0"
	}
	o := Options{Headers: list.Headers{Account: "\x1b[2J<script>alert(1)</script>"}, Source: "\x1b]0;x\x07<b>.csv"}
	var text, page, table bytes.Buffer
	if err := Text(&text, r, o); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(text.String(), "\x1b\x07") {
		t.Errorf("control characters on the terminal: %q", text.String())
	}
	if err := HTML(&page, r, o); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(page.String(), "<script") || strings.Contains(page.String(), "<b>") {
		t.Error("markup in the page")
	}
	if err := CSV(&table, r, Options{Language: English}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(table.String(), ";=") {
		t.Error("a formula in the table")
	}
}

func TestColorOnlyWhereItIsWanted(t *testing.T) {
	for _, color := range []bool{false, true} {
		var b bytes.Buffer
		if err := Text(&b, office(cases["swapped"]), Options{Color: color}); err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(b.String(), "\x1b["); got != color {
			t.Errorf("colours: %v, want %v", got, color)
		}
	}
}

func TestLanguages(t *testing.T) {
	for s, want := range map[string]Language{"de": German, "de-DE": German, "EN": English, "en-GB": English} {
		if got, err := ParseLanguage(s); err != nil || got != want {
			t.Errorf("ParseLanguage(%q) = %q, %v", s, got, err)
		}
	}
	if _, err := ParseLanguage("fr"); err == nil {
		t.Error("fr was taken")
	}
}

// Every code has a text of its own in both languages.
func TestEveryCodeHasATextInBothLanguages(t *testing.T) {
	seen := map[string]check.Code{}
	for c := check.CodeRight; c.String() != "unknown"; c++ {
		f := check.Finding{Code: c, Source: "ad", Address: "a@health.example"}
		en, de := English.finding(&f, &list.Row{}), German.finding(&f, &list.Row{})
		if en == de || en == "not compared" {
			t.Errorf("%v: %q, %q", c, en, de)
		}
		if other, twice := seen[en]; twice {
			t.Errorf("%v and %v have one text: %q", c, other, en)
		}
		seen[en] = c
	}
}

// One row that is another mailbox's by an earlier list isn't lost among two hundred that the target
// doesn't know yet.
func TestWhatMattersIsShownFirst(t *testing.T) {
	source := check.NewFacts("ad", time.Unix(1e9, 0))
	l, earlier := &list.List{ID: "health-0002", Agency: "health"}, &list.List{ID: "health-0001", Agency: "health"}
	for i := range 200 {
		o := &directory.Object{ID: routing.MailboxID{byte(i), 1}, Kind: directory.KindUser, Enabled: i != 190, Addresses: []routing.Address{routing.Address(fmt.Sprintf("p%03d@health.example", i))}}
		source.Add(o, "health")
		l.Rows = append(l.Rows, list.Row{Address: o.Primary(), ID: o.ID, Agency: "health"})
	}
	earlier.Rows = []list.Row{{Address: "p170@health.example", ID: routing.MailboxID{99, 2}, Agency: "health"}}
	r := check.Check(check.Input{List: l, Source: source, Target: check.NewFacts("ucs", time.Unix(1e9, 0)), Earlier: []*list.List{earlier}})
	if !r.Clean() {
		t.Fatalf("%+v", r)
	}
	if got := Tally(r, check.Warning); got != "earlier 1, disabled 1, not-on-target 200" {
		t.Errorf("tally %q", got)
	}
	rows := strings.Join(Rows(r, check.Warning, English, 10), "\n")
	var b strings.Builder
	if err := Text(&b, r, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{rows, b.String()} {
		first, second := strings.Index(text, "p170@health.example"), strings.Index(text, "p190@health.example")
		if first < 0 || second < first || !strings.Contains(text, "p000@health.example") || strings.Contains(text, "p060@health.example") {
			t.Errorf("not the rows that matter, in the list's order:\n%s", text)
		}
	}
	if n := len(Rows(r, check.Warning, English, -1)); n != 200 {
		t.Errorf("all are %d, want 200", n)
	}
}
