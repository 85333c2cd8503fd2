package check

import (
	"archive/zip"
	"bytes"
	"encoding/csv"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/text/encoding/charmap"

	"mailcutover/identity/list"
	"mailcutover/routing"
)

// grid is a list as a spreadsheet has it: a header, and rows of cells.
type grid [][]string

// The columns that hold what belongs together, where a grid has them.
var names = []string{"E-Mail-Adresse", "Accountname", "objectGUID"}

// sheet returns the right list of agencies, with accounts.
func (w *world) sheet(agencies ...routing.AgencyID) grid {
	g := grid{{"E-Mail-Adresse", "Accountname", "objectGUID", "Behörde"}}
	for _, r := range w.list(true, agencies...).Rows {
		g = append(g, []string{string(r.Address), r.Account, r.ID.String(), string(r.Agency)})
	}
	return g
}

func (g grid) clone() grid {
	out := make(grid, len(g))
	for i := range g {
		out[i] = slices.Clone(g[i])
	}
	return out
}

func (g grid) column(name string) int { return slices.Index(g[0], name) }

// sort sorts one column without the others, as spreadsheets do.
func (g grid) sort(name string) {
	c := g.column(name)
	cells := make([]string, 0, len(g))
	for _, row := range g[1:] {
		cells = append(cells, row[c])
	}
	slices.SortFunc(cells, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	for i := range cells {
		g[1+i][c] = cells[i]
	}
}

// csv is the grid as German Excel saves it as "CSV (Trennzeichen-getrennt)": semicolons, in
// Windows-1252; or as "CSV UTF-8", with a byte order mark.
func (g grid) csv(t testing.TB, ansi bool) []byte {
	t.Helper()
	var b bytes.Buffer
	if !ansi {
		b.WriteString("\xef\xbb\xbf")
	}
	w := csv.NewWriter(&b)
	w.Comma, w.UseCRLF = ';', true
	if err := w.WriteAll(g); err != nil {
		t.Fatal(err)
	}
	if !ansi {
		return b.Bytes()
	}
	text, err := charmap.Windows1252.NewEncoder().Bytes(b.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// plain is the grid as CSV whose cells need no quotes.
func (g grid) plain() []byte {
	var b []byte
	for _, row := range g {
		for i, cell := range row {
			if i > 0 {
				b = append(b, ';')
			}
			b = append(b, cell...)
		}
		b = append(b, '\r', '\n')
	}
	return b
}

// xlsx is the grid as a workbook, its texts shared as Excel has them.
func (g grid) xlsx(t testing.TB) []byte {
	t.Helper()
	var sheet, texts strings.Builder
	n := 0
	for i, row := range g {
		fmt.Fprintf(&sheet, `<row r="%d" spans="1:%d">`, i+1, len(row))
		for c, text := range row {
			fmt.Fprintf(&sheet, `<c r="%c%d" s="1" t="s"><v>%d</v></c>`, 'A'+c, i+1, n)
			texts.WriteString("<si><t>")
			if err := xml.EscapeText(&texts, []byte(text)); err != nil {
				t.Fatal(err)
			}
			texts.WriteString("</t></si>")
			n++
		}
		sheet.WriteString("</row>")
	}
	const main = `xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"`
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range map[string]string{
		"[Content_Types].xml":        `<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>`,
		"xl/workbook.xml":            `<workbook ` + main + ` xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Tabelle1" sheetId="1" r:id="rId1"/></sheets></workbook>`,
		"xl/_rels/workbook.xml.rels": `<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>`,
		"xl/sharedStrings.xml":       `<sst ` + main + `>` + texts.String() + `</sst>`,
		"xl/worksheets/sheet1.xml":   `<worksheet ` + main + `><sheetData>` + sheet.String() + `</sheetData></worksheet>`,
	} {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(`<?xml version="1.0" encoding="UTF-8" standalone="yes"?>` + "\n" + text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// The incident in the files that offices have: three agencies in one sheet, one column sorted;
// then one agency alone, which only the directory can tell.
func TestTheIncidentInFiles(t *testing.T) {
	w := newWorld(rng(11), map[routing.AgencyID]int{"health": 310, "labour": 280, "police": 200})
	formats := map[string]func(grid) []byte{
		"Excel's CSV":       func(g grid) []byte { return g.csv(t, true) },
		"Excel's CSV UTF-8": func(g grid) []byte { return g.csv(t, false) },
		"XLSX":              func(g grid) []byte { return g.xlsx(t) },
	}
	options := list.Options{Agency: "health", ID: "health-0001", Source: "phase2"}
	for format, file := range formats {
		for column, want := range map[string]Column{"E-Mail-Adresse": ColumnAddress, "Accountname": ColumnAccount, "objectGUID": ColumnID} {
			t.Run(format+", pasted, "+column, func(t *testing.T) {
				g := w.sheet("health", "labour", "police")
				slices.Reverse(g[1:]) // so that no column is in order before
				g.sort(column)
				l, err := list.Read(file(g), options)
				var problems *list.Problems
				if !errors.As(err, &problems) || problems.Total != 480 {
					t.Fatalf("%v; want 480 rows of other agencies", err)
				}
				first, last := problems.List[0], problems.List[479]
				if first.Line != 2 || last.Line != 481 || !strings.Contains(first.Text, `"police": the row is of another agency`) || !strings.Contains(last.Text, "labour") {
					t.Errorf("problems from %q to %q", first, last)
				}
				named(t, Check(Input{List: l, Source: w.source}), want, 791)
			})
			t.Run(format+", one agency, "+column, func(t *testing.T) {
				g := w.sheet("health")
				slices.Reverse(g[1:])
				g.sort(column)
				l, err := list.Read(file(g), options)
				if err != nil {
					t.Fatal(err)
				}
				named(t, Check(Input{List: l, Source: w.source}), want, 311)
			})
		}
		t.Run(format+", nothing done", func(t *testing.T) {
			l, err := list.Read(file(w.sheet("health")), options)
			if err != nil {
				t.Fatal(err)
			}
			if r := Check(Input{List: l, Source: w.source}); !r.Clean() || r.Right != 310 {
				t.Errorf("%d of 310 rows are right: %+v", r.Right, r.Permutations)
			}
		})
	}
}

// named wants one permutation, the sort of a column in nearly all lines up to last.
func named(t *testing.T, r *Result, column Column, last int) {
	t.Helper()
	if r.Clean() || len(r.Permutations) != 1 {
		t.Fatalf("clean %v, %d permutations", r.Clean(), len(r.Permutations))
	}
	p := r.Permutations[0]
	if p.Column != column || p.How != Sorted || p.First > 6 || p.Last < last-4 || len(p.Pairs) < last-10 || r.Crossed() < len(p.Pairs) {
		t.Errorf("found %v %v in lines %d to %d, %d pairs, %d crossed; want %v sorted up to line %d", p.Column, p.How, p.First, p.Last, len(p.Pairs), r.Crossed(), column, last)
	}
}

// parse reads a generated list's file as a grid.
func parse(t testing.TB, text []byte) grid {
	t.Helper()
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma = ';'
	rows, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// corrupt does one thing to a grid that makes it wrong. more are rows of the same form that
// don't belong here.
func corrupt(r *rand.Rand, g, more grid, columns []string) grid {
	was := g
	for {
		g := was.clone()
		c := g.column(columns[r.IntN(len(columns))])
		rows := g[1:]
		at := r.IntN(len(rows))
		other := (at + 1 + r.IntN(len(rows)-1)) % len(rows)
		foreign := more[r.IntN(len(more))]
		from := r.IntN(len(rows) - 1)
		to := from + 2 + r.IntN(len(rows)-from-1)
		part := rows[from:to]
		cells := make([]string, len(part))
		for i := range part {
			cells[i] = part[i][c]
		}
		fill := func() {
			for i := range part {
				part[i][c] = cells[i]
			}
		}
		switch r.IntN(12) {
		case 0:
			rows[at][c], rows[other][c] = rows[other][c], rows[at][c]
		case 1:
			rows[at][c] = foreign[c]
		case 2:
			rows[at][c] = rows[other][c]
		case 3: // one character
			cell := []byte(rows[at][c])
			i := r.IntN(len(cell))
			if cell[i] == '@' || cell[i] == '.' || cell[i] == '-' {
				continue
			}
			cell[i] = "0123456789abcdef"[r.IntN(16)]
			rows[at][c] = string(cell)
		case 4: // moved against the others
			k := 1 + r.IntN(len(cells)-1)
			cells = append(cells[k:], cells[:k]...)
			fill()
		case 5: // a cell inserted above
			cells = append([]string{""}, cells[:len(cells)-1]...)
			fill()
		case 6:
			slices.Sort(cells)
			fill()
		case 7:
			slices.Sort(cells)
			slices.Reverse(cells)
			fill()
		case 8:
			r.Shuffle(len(cells), func(i, j int) { cells[i], cells[j] = cells[j], cells[i] })
			fill()
		case 9: // another agency's row
			g = append(g, foreign)
		case 10: // as if it were of this one
			row := slices.Clone(foreign)
			for i, name := range g[0] {
				if name == "Behörde" || name == "agency" || name == "list" {
					row[i] = rows[at][i]
				}
			}
			g[1+at] = row
		case 11: // the id's bytes in the other order
			i := max(g.column("objectGUID"), g.column("directory_id"))
			s := []byte(rows[at][i])
			for _, swap := range [][2]int{{0, 6}, {1, 7}, {2, 4}, {3, 5}, {9, 11}, {10, 12}, {14, 16}, {15, 17}} {
				s[swap[0]], s[swap[1]] = s[swap[1]], s[swap[0]]
			}
			rows[at][i] = string(s)
		}
		if !slices.EqualFunc(g, was, func(a, b []string) bool { return slices.Equal(a, b) }) {
			return g
		}
	}
}

// seed is that of the corruptions; a campaign takes others.
var seed = flag.Uint64("check.seed", 12, "seed of the corrupted lists")

// Whatever is done to the cells of a file, down to two that are exchanged, it isn't taken:
// 100,000 times, from file to verdict, half of them foreign lists, of which only the
// directory can tell; the others generated, with digests.
func TestNoCorruptedFileIsClean(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 2000
	}
	key, err := list.NewKey([]byte("a key for tests, not secret"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		columns []string
		key     *list.Key
		grids   func(*world) (g, more grid)
	}{
		{"foreign", names, nil, func(w *world) (g, more grid) {
			return w.sheet("health"), w.sheet("labour")[1:]
		}},
		{"generated", []string{"list", "agency", "address", "directory_id", "digest"}, &key, func(w *world) (g, more grid) {
			var files []grid
			for _, agency := range []routing.AgencyID{"health", "labour"} {
				lists, err := list.Generate(list.Order{Agency: agency, Key: key}, w.objects[agency])
				if err != nil {
					t.Fatal(err)
				}
				var b bytes.Buffer
				if err := lists[0].Write(&b); err != nil {
					t.Fatal(err)
				}
				files = append(files, parse(t, b.Bytes()))
			}
			return files[0], files[1][1:]
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := rng(*seed)
			w := newWorld(r, map[routing.AgencyID]int{"health": 5, "labour": 3})
			right, more := c.grids(w)
			options := list.Options{Agency: "health", ID: "health-0001", Source: "a.csv", Key: c.key}
			check := func(g grid) (read, clean bool) {
				l, err := list.Read(g.plain(), options)
				if err != nil {
					return false, false
				}
				return true, Check(Input{List: l, Key: c.key, Source: w.source}).Clean()
			}
			if read, clean := check(right); !read || !clean {
				t.Fatalf("the right file: read %v, clean %v", read, clean)
			}
			byRead := 0
			for i := range n / 2 {
				g := corrupt(r, right, more, c.columns)
				read, clean := check(g)
				if clean {
					t.Fatalf("corruption %d is clean:\n%s", i, g.plain())
				}
				if !read {
					byRead++
				}
			}
			if c.key != nil && byRead != n/2 {
				t.Errorf("digests refused %d of %d", byRead, n/2)
			}
			t.Logf("%d refused when they were read, %d by the check", byRead, n/2-byRead)
		})
	}
}

// Order, case, braces around ids and rows that are new are no reason to refuse a file.
func TestHarmlessFilesAreClean(t *testing.T) {
	key, err := list.NewKey([]byte("a key for tests, not secret"))
	if err != nil {
		t.Fatal(err)
	}
	r := rng(13)
	w := newWorld(r, map[routing.AgencyID]int{"health": 60})
	known := w.objects["health"][:40] // the rest came after phase one
	before, err := list.Generate(list.Order{Agency: "health", Key: key}, known)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1000 {
		g, k := w.sheet("health"), (*list.Key)(nil)
		if n%2 == 1 {
			lists, err := list.Generate(list.Order{Agency: "health", First: 2, Key: key}, w.objects["health"])
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := lists[0].Write(&b); err != nil {
				t.Fatal(err)
			}
			g, k = parse(t, b.Bytes()), &key
		}
		r.Shuffle(len(g)-1, func(i, j int) { g[1+i], g[1+j] = g[1+j], g[1+i] })
		g = g[:2+r.IntN(len(g)-1)]
		for _, row := range g[1:] {
			for i, name := range g[0] {
				switch name {
				case "E-Mail-Adresse", "address", "Accountname", "objectGUID", "directory_id":
					if r.IntN(2) == 0 {
						row[i] = strings.ToUpper(row[i])
					}
				}
				if strings.HasSuffix(strings.ToLower(name), "id") && r.IntN(2) == 0 {
					row[i] = "{" + row[i] + "}"
				}
			}
		}
		l, err := list.Read(g.csv(t, false), list.Options{Agency: "health", ID: "health-0002", Key: k})
		if err != nil {
			t.Fatalf("%v:\n%s", err, g.csv(t, false))
		}
		res := Check(Input{List: l, Key: k, Source: w.source, Earlier: before})
		if !res.Clean() || res.Warnings > 0 || res.Right != len(g)-1 {
			t.Fatalf("%d right, %d warnings, %d wrong of %d", res.Right, res.Warnings, res.Wrong, len(g)-1)
		}
	}
}

// The table of docs/operations/lists.md has every verdict, and says what it means for the
// list.
func TestEveryVerdictIsExplained(t *testing.T) {
	text, err := os.ReadFile("../../docs/operations/lists.md")
	if err != nil {
		t.Fatal(err)
	}
	for c := range len(codeNames) {
		code := Code(c)
		severity := map[Severity]string{Wrong: "wrong ", Warning: "warning ", Fine: ""}[code.Severity()]
		if row := fmt.Sprintf("\n| `%v` | %s| ", code, severity); !strings.Contains(string(text), row) {
			t.Errorf("no row that begins with %q", row)
		}
	}
}
