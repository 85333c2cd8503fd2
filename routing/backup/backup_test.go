package backup

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"mailcutover/routing"
	"mailcutover/routing/table"
)

var began = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func sample(t *testing.T) (Header, table.Foundation) {
	t.Helper()
	at := routing.Position{Incarnation: "0197e3a0-0000-7000-8000-000000000001", Revision: 812, Mapped: 700, Term: 3}
	lineage := routing.Lineage{{Number: 1, Began: began.Add(-time.Hour)}, {Number: 3, Base: 40, Began: began}}
	f := table.Foundation{
		Source: at, Lineage: lineage,
		Domains:    []routing.Domain{{Name: "health.example", Complete: true, Revision: 5}},
		Fixed:      []routing.Fixed{{Address: "list@health.example", Kind: "group", Platform: "ox", Revision: 6}},
		Members:    []routing.Member{{Node: "mx1.example", Instance: "i-1", Protocol: table.Protocol, Joined: began, Revision: 7}},
		Operations: []routing.Operation{{ID: "op-1", Kind: "cutover", Agency: "tax", Agencies: []routing.AgencyID{"tax"}, Started: began, Revision: 8}},
		Freezes:    []routing.Freeze{{Who: "bert", Reason: "<r> & \u2028", Since: began, Revision: 9}},
		Documents:  []routing.Document{{Key: "list/1", Text: "a\nb\t<c>", Revision: 10}},
	}
	for i, id := range []routing.AgencyID{"health", "tax", "empty"} {
		a, err := routing.NewAgency(id, "exchange", "ox")
		if err != nil {
			t.Fatal(err)
		}
		a.Revision = routing.Revision(i + 1)
		if id != "empty" {
			m, err := routing.NewMapping(id, []routing.Row{
				{Mailbox: routing.MailboxID{1, 15: byte(i)}, Kind: routing.KindUser, Addresses: []routing.Address{routing.Address("anna@" + id + ".example"), routing.Address("ä@" + id + ".example")}},
				{Mailbox: routing.MailboxID{2, 15: byte(i)}, Kind: routing.KindShared, Addresses: []routing.Address{routing.Address("bert@" + id + ".example")}},
			})
			if err != nil {
				t.Fatal(err)
			}
			a.Mapping = m.Digest()
			f.Mappings = append(f.Mappings, m)
		}
		f.Agencies = append(f.Agencies, a)
	}
	return Header{Made: began, Node: "mx1.example", Person: "Anna Berg", Position: at, Lineage: lineage}, f
}

func written(t *testing.T) (string, routing.Digest) {
	t.Helper()
	h, f := sample(t)
	var b bytes.Buffer
	digest, err := Write(&b, h, &f)
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), digest
}

// What was read is what was written, and is written again as the same file.
func TestWriteRead(t *testing.T) {
	text, digest := written(t)
	c, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if c.Digest != digest || c.Mailboxes != 4 || len(c.Contents.Agencies) != 3 || len(c.Contents.Mappings) != 2 || c.Header.Person != "Anna Berg" || !c.Contents.Lineage.Equal(c.Header.Lineage) {
		t.Errorf("%+v", c)
	}
	var again bytes.Buffer
	if d, err := Write(&again, c.Header, &c.Contents); err != nil || d != digest || again.String() != text {
		t.Errorf("written again: %v, %s\n%s", err, d, again.String())
	}
}

// No byte of a file can be altered, and it can't be cut anywhere.
func TestAltered(t *testing.T) {
	text, _ := written(t)
	for i := range len(text) {
		if _, err := Read(strings.NewReader(text[:i])); !errors.Is(err, ErrBad) {
			t.Fatalf("cut after %d bytes: %v", i, err)
		}
		b := []byte(text)
		b[i] ^= 1
		if c, err := Read(bytes.NewReader(b)); err == nil {
			// The letters of the digest may be capitals, and nothing else.
			if _, want := written(t); c.Digest != want {
				t.Fatalf("byte %d altered from %q: read as %s", i, text[i], c.Digest)
			}
		} else if !errors.Is(err, ErrBad) {
			t.Fatalf("byte %d altered: %v", i, err)
		}
	}
}

// A file whose digest is right can still be one that nobody should restore.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Header, *table.Foundation)
		want  string
	}{
		"no table":            {func(h *Header, _ *table.Foundation) { h.Position = routing.Position{} }, "of no table"},
		"mapping missing":     {func(_ *Header, f *table.Foundation) { f.Mappings = f.Mappings[1:] }, "agency health names the mapping"},
		"mapping of nobody":   {func(_ *Header, f *table.Foundation) { f.Agencies = f.Agencies[1:] }, "a mapping of agency health, which isn't there"},
		"another's mapping":   {func(_ *Header, f *table.Foundation) { f.Agencies[0].Mapping = f.Agencies[1].Mapping }, "agency health names the mapping"},
		"agency twice":        {func(_ *Header, f *table.Foundation) { f.Agencies[1] = f.Agencies[0] }, "agency health stands twice"},
		"name of no agency":   {func(_ *Header, f *table.Foundation) { f.Agencies[2].ID = "No!" }, "bad identifier"},
		"from the future":     {func(_ *Header, f *table.Foundation) { f.Agencies[0].Revision = 813 }, "is of revision 813, the copy of 812"},
		"epoch of the future": {func(_ *Header, f *table.Foundation) { f.Agencies[0].Epoch.Term = 4 }, "the copy is of term 3"},
		"removed":             {func(_ *Header, f *table.Foundation) { f.Domains[0].Removed = true }, "says that it was removed"},
	} {
		h, f := sample(t)
		c.spoil(&h, &f)
		var b bytes.Buffer
		if _, err := Write(&b, h, &f); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&b); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Lines that this program didn't write.
func TestForeignLines(t *testing.T) {
	text, _ := written(t)
	lines := strings.SplitAfter(text, "\n")
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", "ends within or before line 1"},
		"not JSON":         {"hello\n", "line 1"},
		"newer format":     {strings.Replace(text, `"format":1`, `"format":2`, 1), "format 2"},
		"unknown field":    {strings.Replace(text, `"complete":true`, `"complete":true,"new":1`, 1), `unknown field "new"`},
		"unknown line":     {lines[0] + `{"wave":{}}` + "\n", `unknown field "wave"`},
		"two in a line":    {lines[0] + `{"domain":{"name":"a"},"freeze":{}}` + "\n", "2 things"},
		"nothing in it":    {lines[0] + "{}\n", "0 things"},
		"two values":       {lines[0] + `{"domain":{"name":"a"}} {}` + "\n", "more than one value"},
		"header twice":     {lines[0] + lines[0], "no other"},
		"header later":     {lines[1], "want the first line"},
		"behind the end":   {text + "\n", "something stands behind"},
		"a line left out":  {lines[0] + strings.Join(lines[2:], ""), "it was altered"},
		"lines exchanged":  {lines[0] + lines[2] + lines[1] + strings.Join(lines[3:], ""), "it was altered"},
		"end of something": {lines[0] + fmt.Sprintf(`{"end":{"lines":0,"sha256":"%064d"}}`, 0) + "\n", "it was altered"},
	} {
		if _, err := Read(strings.NewReader(c.text)); !errors.Is(err, ErrBad) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"backup":{"format":1,"made":"2030-01-02T03:04:05Z","node":"a","person":"b","position":{"incarnation":"i","revision":1,"mapped":1,"term":1}}}` + "\n"))
	f.Add([]byte(`{"mapping":{"agency":"a","digest":"","text":"x"}}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Read(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrBad) {
				t.Errorf("%v", err)
			}
			return
		}
		var again bytes.Buffer
		if _, err := Write(&again, c.Header, &c.Contents); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(&again); err != nil {
			t.Errorf("written again it can't be read: %v", err)
		}
	})
}
