package list

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"mailcutover/identity/directory"
	"mailcutover/routing"
)

const (
	idA = "6b1f2ad0-3c4e-4f5a-8b6c-7d8e9fa0b1c2"
	idB = "00000000-0000-0000-0000-0000000000b0"
)

func testKey(t *testing.T) Key {
	t.Helper()
	key, err := NewKey([]byte("a key for tests, not secret"))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestGenerateWriteRead(t *testing.T) {
	key := testKey(t)
	var objects []*directory.Object
	for i := range 450 {
		a, err := routing.ParseAddress(fmt.Sprintf("u%03d@health.example", 449-i))
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, &directory.Object{ID: routing.MailboxID{1, byte(i), byte(i >> 8)}, Kind: directory.KindUser, Addresses: []routing.Address{a}})
	}
	objects = append(objects, &directory.Object{ID: routing.MailboxID{2}, Kind: directory.KindGroup, Addresses: []routing.Address{"all@health.example"}})
	lists, err := Generate(Order{Agency: "health", First: 3, By: "Anna", Made: time.Unix(1e9, 0), Key: key}, objects)
	if err != nil {
		t.Fatal(err)
	}
	if len(lists) != 3 || len(lists[0].Rows) != 200 || len(lists[2].Rows) != 50 || lists[2].Number != 5 || lists[0].Rows[0].Address != "u000@health.example" {
		t.Fatalf("%d lists, the last of %d rows", len(lists), len(lists[len(lists)-1].Rows))
	}
	for _, l := range lists {
		var file bytes.Buffer
		if err := l.Write(&file); err != nil {
			t.Fatal(err)
		}
		got, err := Read(file.Bytes(), Options{Agency: "health", Key: &key})
		if err != nil {
			t.Fatal(err)
		}
		if got.Foreign || got.ID != l.ID || got.Digest() != l.Digest() || len(got.Rows) != len(l.Rows) || got.Rows[0].Line != 2 {
			t.Errorf("read %q of %d rows, foreign %v; wrote %q of %d", got.ID, len(got.Rows), got.Foreign, l.ID, len(l.Rows))
		}
		// Any cell that is exchanged with the row below is found.
		lines := strings.Split(strings.TrimSuffix(file.String(), "\r\n"), "\r\n")
		for column := range 6 {
			a, b := strings.Split(lines[1], ";"), strings.Split(lines[2], ";")
			if a[column] == b[column] || column == 1 {
				continue
			}
			a[column], b[column] = b[column], a[column]
			changed := append([]string{lines[0], strings.Join(a, ";"), strings.Join(b, ";")}, lines[3:]...)
			var problems *Problems
			if _, err := Read([]byte(strings.Join(changed, "\r\n")), Options{Agency: "health", Key: &key}); !errors.As(err, &problems) || problems.Total != 2 {
				t.Errorf("column %d of two rows exchanged: %v", column, err)
			}
		}
	}
	objects[0].ID = routing.MailboxID{}
	if _, err := Generate(Order{Agency: "health", Key: key}, objects); err == nil {
		t.Error("a mailbox without an id was left out")
	}
}

func TestDialects(t *testing.T) {
	plain := "E-Mail-Adresse;Accountname;objectGUID;Behörde\r\nanna@health.example;anna;" + idA + ";health\r\nbert@health.example;bert;{" + strings.ToUpper(idB) + "};health\r\n"
	utf16, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().String(strings.ReplaceAll(plain, ";", "\t"))
	if err != nil {
		t.Fatal(err)
	}
	ansi, err := charmap.Windows1252.NewEncoder().String(plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, text string }{
		{"semicolon", plain},
		{"comma", strings.ReplaceAll(plain, ";", ",")},
		{"tab", strings.ReplaceAll(plain, ";", "\t")},
		{"byte order mark", "\xef\xbb\xbf" + plain},
		{"UTF-16", utf16},
		{"Windows-1252", ansi},
		{"Excel's hint", "sep=;\r\n" + plain},
		{"LF", strings.ReplaceAll(plain, "\r\n", "\n")},
		{"quotes", strings.ReplaceAll(strings.ReplaceAll(plain, "anna@health.example", `"anna@health.example"`), ";health\r\n", ";\"health\r\n\"\r\n")},
		{"blanks and empty lines", strings.ReplaceAll(plain, "\r\n", " ;\r\n;;;\r\n\r\n")},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := Read([]byte(c.text), Options{Agency: "health", ID: "health-0001", Source: "x.csv"})
			if err != nil {
				t.Fatal(err)
			}
			if len(l.Rows) != 2 || l.Rows[0].Address != "anna@health.example" || l.Rows[1].ID.String() != idB || l.Rows[1].Account != "bert" || !l.Foreign || l.Headers.Account != "Accountname" {
				t.Errorf("read %+v", l)
			}
		})
	}
}

func TestWhatIsRefused(t *testing.T) {
	key := testKey(t)
	const head = "address;directory_id;agency\n"
	for _, c := range []struct{ name, text, want string }{
		{"unknown column", "address;directory_id;ExchangeGuid\n", `line 1: column "ExchangeGuid" isn't known`},
		{"column twice", "address;mail;directory_id\n", `line 1: column "mail"`},
		{"no ids", "address;agency\n", "no column of directory ids"},
		{"no addresses", "directory_id;agency\n", "no column of addresses"},
		{"nothing", head, "no row"},
		{"agencies merged", head + "a@health.example;" + idA + ";health\nb@labour.example;" + idB + ";labour\n", `line 3: "labour": the row is of another agency`},
		{"address twice", head + "a@health.example;" + idA + ";health\nA@Health.example;" + idB + ";health\n", `line 3: "a@health.example": the address is in line 2`},
		{"id twice", head + "a@health.example;" + idA + ";health\nb@health.example;" + idA + ";health\n", "line 3: \"" + idA + "\": the directory id is in line 2"},
		{"empty address", head + ";" + idA + ";health\n", "line 2: the address is missing"},
		{"empty id", head + "a@health.example;;health\n", "line 2: the directory id is missing"},
		{"formula", head + "=A1;" + idA + ";health\n", `line 2: "=A1": a formula`},
		{"command", head + "a@health.example;" + idA + ";@SUM(1)\n", "a formula"},
		{"line break", head + "\"a\n@health.example\";" + idA + ";health\n", "line 2: \"a\\n@health.example\": a line break"},
		{"ambiguous id", head + "a@health.example;6b1f2ad03c4e4f5a8b6c7d8e9fa0b1c2;health\n", "two ways"},
		{"no address", head + "anna;" + idA + ";health\n", `line 2: "anna"`},
		{"cell without column", head + "a@health.example;" + idA + ";health;x\n", "a column without a name"},
		{"digest without list", "address;directory_id;digest\n", "belong together"},
		{"wrong digest", "list;agency;address;directory_id;digest\nl;health;a@health.example;" + idA + ";00000000000000000000000000000001\n", "line 2: the digest is wrong"},
		{"no digest", "list;agency;address;directory_id;digest\nl;health;a@health.example;" + idA + ";\n", "line 2: the digest is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read([]byte(c.text), Options{Agency: "health", Source: "x.csv", Key: &key})
			var problems *Problems
			if !errors.As(err, &problems) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v; want %q", err, c.want)
			}
			for _, p := range problems.List {
				inGerman(t, p.Text, p.German)
			}
		})
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "empty"},
		{"an old workbook", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", ".xls"},
		{"a quote too many", head + "a\"b;c;d\n", "line 2"},
		{"zeros", "a\x00b", "NUL"},
		{"no workbook", "PK\x03\x04nothing", "workbook"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read([]byte(c.text), Options{Agency: "health", Source: "x.csv"})
			file, ok := errors.AsType[*FileError](err)
			if !ok || !errors.Is(err, ErrFile) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v; want ErrFile with %q", err, c.want)
			}
			inGerman(t, file.Text, file.German)
		})
	}
}

// inGerman checks that a text was filled in in both languages, with what is in quotes in both.
func inGerman(t *testing.T, english, german string) {
	t.Helper()
	if english == "" || german == "" || english == german || strings.Contains(english+german, "%!") {
		t.Errorf("%q, in German %q", english, german)
	}
	for i, quoted := range strings.Split(english, `"`) {
		if i == 1 && strings.HasPrefix(english, `"`) && !strings.Contains(german, `"`+quoted+`"`) {
			t.Errorf("%q, in German %q: which cell?", english, german)
		}
	}
}

// Nobody meets the id of a list again, however often lists are generated.
func TestNewID(t *testing.T) {
	seen := make(map[string]bool)
	for range 1000 {
		id := NewID("health", 3)
		if suffix, ok := strings.CutPrefix(id, "health-0003-"); !ok || len(suffix) != 16 || seen[id] {
			t.Fatalf("%q, seen %v", id, seen[id])
		}
		seen[id] = true
	}
	// The id is whatever stands in the rows: one with four digits is of a list made before.
	key := testKey(t)
	row := Row{Address: "anna@health.example", ID: routing.MailboxID{1}, Agency: "health"}
	row.MAC = key.Row("health-0001-8f2c", &row)
	var file bytes.Buffer
	old := &List{ID: "health-0001-8f2c", Agency: "health", Rows: []Row{row}}
	if err := old.Write(&file); err != nil {
		t.Fatal(err)
	}
	if l, err := Read(file.Bytes(), Options{Agency: "health", Key: &key}); err != nil || l.ID != old.ID {
		t.Errorf("%+v, %v", l, err)
	}
}

// workbookOf returns an .xlsx with this sheet, and perhaps with further parts.
func workbookOf(t *testing.T, sheet, strs string, more ...[2]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	cols, rows, ok := strings.Cut(sheet, "</cols>")
	if ok {
		cols += "</cols>"
	} else {
		cols, rows = "", sheet
	}
	for _, part := range append([][2]string{
		{"xl/workbook.xml", `<workbook xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="Tabelle1" sheetId="1" r:id="rId1"/><sheet name="Tabelle2" sheetId="2" r:id="rId2" state="hidden"/></sheets></workbook>`},
		{"xl/_rels/workbook.xml.rels", `<Relationships><Relationship Id="rId1" Target="worksheets/sheet1.xml"/><Relationship Id="rId2" Target="/xl/worksheets/sheet2.xml"/></Relationships>`},
		{"xl/sharedStrings.xml", "<sst>" + strs + "</sst>"},
		{"xl/worksheets/sheet1.xml", "<worksheet>" + cols + "<sheetData>" + rows + "</sheetData></worksheet>"},
	}, more...) {
		f, err := z.Create(part[0])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(part[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWorkbook(t *testing.T) {
	const header = `<row r="1"><c r="A1" t="s"><v>0</v></c><c r="C1" t="inlineStr"><is><t>directory_id</t></is></c></row>`
	const strs = `<si><t>address</t></si><si><r><t>anna@</t></r><r><t>health.example</t></r></si><si><t>` + idA + `</t></si>`
	const row = `<row r="3"><c r="A3" t="s"><v>1</v></c><c r="C3" t="s"><v>2</v></c></row>`
	l, err := Read(workbookOf(t, header+row, strs), Options{Agency: "health", ID: "health-0001"})
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Rows) != 1 || l.Rows[0].Address != "anna@health.example" || l.Rows[0].ID.String() != idA || l.Rows[0].Line != 3 {
		t.Errorf("read %+v", l.Rows)
	}
	for name, c := range map[string]struct {
		rows, want string
		more       [][2]string
	}{
		"empty sheet beside it":      {rows: header + row, more: [][2]string{{"xl/worksheets/sheet2.xml", `<worksheet><sheetData><row r="1"><c r="A1" s="1"/></row></sheetData></worksheet>`}}},
		"further sheet":              {rows: header + row, more: [][2]string{{"xl/worksheets/sheet2.xml", `<worksheet><sheetData><row r="1"><c r="A1"><v>1</v></c></row></sheetData></worksheet>`}}, want: `further sheet, "Tabelle2"`},
		"two parts of one name":      {rows: header + row, more: [][2]string{{"xl/worksheets/sheet1.xml", "<worksheet/>"}}, want: "two parts"},
		"hidden column":              {rows: `<cols><col min="3" max="4" hidden="1" width="10"/></cols>` + header + row, want: "hidden column"},
		"column without width":       {rows: `<cols><col min="1" max="2" width="0" customWidth="1"/></cols>` + header + row, want: "hidden column"},
		"hidden column, empty":       {rows: `<cols><col min="2" max="2" hidden="1" width="10"/><col min="4" max="16384" hidden="1"/></cols>` + header + row},
		"rows hidden by themselves":  {rows: `<cols><col min="1" max="1" width="9"/></cols><sheetFormatPr defaultRowHeight="15" zeroHeight="1"/>` + header + row, want: "hides rows or columns"},
		"columns without any width":  {rows: `<sheetFormatPr defaultColWidth="0" defaultRowHeight="15"/>` + header + row, want: "hides rows or columns"},
		"as Excel writes it":         {rows: `<sheetFormatPr baseColWidth="10" defaultRowHeight="15"/>` + header + row},
		"row without height":         {rows: header + `<row r="2" ht="0" customHeight="1"><c r="A2" t="s"><v>1</v></c></row>`, want: "row 2 is hidden"},
		"row twice":                  {rows: header + row + row, want: "row 3 comes after row 3"},
		"rows in another order":      {rows: header + row + `<row r="2"><c r="A2" t="s"><v>1</v></c></row>`, want: "damaged"},
		"cells in another order":     {rows: header + `<row r="2"><c r="C2" t="s"><v>2</v></c><c r="A2" t="s"><v>1</v></c></row>`, want: "columns in order"},
		"cell twice":                 {rows: header + `<row r="2"><c r="A2" t="s"><v>1</v></c><c r="A2" t="s"><v>1</v></c></row>`, want: "columns in order"},
		"id as a number":             {rows: header + `<row r="2"><c r="A2" t="s"><v>1</v></c><c r="C2"><v>1.2345678901234567E+31</v></c></row>`, want: "1.2345678901234567E+31"},
		"merged cells, one is empty": {rows: header + row + `<row r="4"><c r="C4" t="s"><v>2</v></c></row>`, want: "address is missing"},
		"formula":                    {rows: header + `<row r="2"><c r="A2"><f>B2</f><v>x</v></c><c r="C2" t="s"><v>2</v></c></row>`, want: "formula"},
		"error":                      {rows: header + `<row r="2"><c r="A2" t="e"><v>#REF!</v></c></row>`, want: "formula"},
		"hidden row":                 {rows: header + `<row r="2" hidden="1"><c r="A2" t="s"><v>1</v></c></row>`, want: "hidden"},
		"no such text":               {rows: header + `<row r="2"><c r="A2" t="s"><v>9</v></c></row>`, want: "text \"9\" of 3"},
		"far away":                   {rows: header + `<row r="2"><c r="ZZZ2" t="s"><v>1</v></c></row>`, want: "columns in order"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Read(workbookOf(t, c.rows, strs, c.more...), Options{Agency: "health"})
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q", err, c.want)
			}
			if file, ok := errors.AsType[*FileError](err); ok {
				inGerman(t, file.Text, file.German)
			}
		})
	}
}

func TestDiff(t *testing.T) {
	id := func(n byte) routing.MailboxID { return routing.MailboxID{n} }
	a := &List{Rows: []Row{{Address: "a@x.example", ID: id(1)}, {Address: "b@x.example", ID: id(2)}, {Address: "c@x.example", ID: id(3)}, {Address: "d@x.example", ID: id(4)}, {Address: "e@x.example", ID: id(5), Agency: "x"}}}
	b := &List{Rows: []Row{{Address: "a@x.example", ID: id(1)}, {Address: "b@x.example", ID: id(3)}, {Address: "c@x.example", ID: id(2)}, {Address: "e@x.example", ID: id(5), Agency: "y"}, {Address: "f@x.example", ID: id(6)}, {Address: "g@x.example", ID: id(4)}}}
	var got []string
	for _, d := range Diff(a, b) {
		got = append(got, fmt.Sprint(d.Change, " ", d.Address))
	}
	want := "[repaired b@x.example repaired c@x.example moved e@x.example added f@x.example readdressed g@x.example]"
	if fmt.Sprint(got) != want {
		t.Errorf("%v, want %s", got, want)
	}
	if d := Diff(b, &List{}); len(d) != 6 || d[0].Change != Gone {
		t.Errorf("everything is gone: %+v", d)
	}
	if d := Diff(b, b); len(d) != 0 {
		t.Errorf("a list and itself: %+v", d)
	}
	// Accounts, beside addresses and in their place.
	a = &List{Rows: []Row{{Address: "a@x.example", Account: `X\anna`, ID: id(1)}, {Address: "b@x.example", Account: "bert", ID: id(2)}, {Account: "carl", ID: id(3)}, {Account: "dora", ID: id(4)}, {Account: "emil", ID: id(5)}}}
	b = &List{Rows: []Row{{Address: "a@x.example", Account: "Anna", ID: id(1)}, {Address: "b@x.example", ID: id(2)}, {Account: "dora", ID: id(3)}, {Account: "dora", ID: id(4)}}}
	if d := Diff(a, b); len(d) != 2 || d[0] != (Difference{Change: Renamed, ID: id(3), Account: "carl"}) || d[1] != (Difference{Change: Gone, ID: id(5)}) {
		t.Errorf("accounts: %+v", d)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("address;directory_id\na@x.example;" + idA + "\n"))
	f.Add([]byte("sep=,\naddress,directory_id\n"))
	f.Add([]byte("PK\x03\x04"))
	key, err := NewKey([]byte("a key for tests, not secret"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l, err := Read(text, Options{Agency: "health", Key: &key})
		if err != nil {
			return
		}
		if len(l.Rows) == 0 {
			t.Error("an empty list was taken")
		}
		for _, r := range l.Rows {
			if r.Agency != "health" || r.ID.IsZero() || r.Address == "" && r.Account == "" || !l.Foreign && !key.Holds(l.ID, &r) {
				t.Errorf("taken: %+v", r)
			}
		}
	})
}
