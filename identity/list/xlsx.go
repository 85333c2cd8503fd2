package list

import (
	"archive/zip"
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
)

// maxColumns is how many columns of a sheet are looked at.
const maxColumns = 64

// readXLSX reads the first sheet of a workbook (ECMA-376 part 1, SpreadsheetML): texts,
// numbers as they are stored, and formulas as formulas.
func readXLSX(text []byte) (*sheet, error) {
	z, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		return nil, refused("read workbook: %v", "die Arbeitsmappe ist nicht lesbar: %v", err)
	}
	w := &workbook{zip: z, left: 4 * MaxBytes}
	name, err := w.onlySheet()
	if err != nil {
		return nil, err
	}
	if err := w.readStrings(); err != nil {
		return nil, err
	}
	return w.readSheet(name)
}

type workbook struct {
	zip     *zip.Reader
	left    int64 // bytes that may still be unpacked
	strings []string
	hidden  []xlsxColumns
}

// xlsxColumns are columns of a sheet that look alike.
type xlsxColumns struct {
	First  int      `xml:"min,attr"` // from 1
	Last   int      `xml:"max,attr"`
	Hidden bool     `xml:"hidden,attr"`
	Width  *float64 `xml:"width,attr"`
}

var errMissing = errors.New("missing")

// part unpacks a part of the workbook.
func (w *workbook) part(name string) ([]byte, error) {
	for i, f := range w.zip.File {
		if f.Name != name {
			continue
		}
		if slices.ContainsFunc(w.zip.File[i+1:], func(other *zip.File) bool { return other.Name == name }) {
			return nil, refused("the workbook has two parts %s: programs would not agree which one counts", "die Arbeitsmappe hat zwei Teile %s: Programme wären sich nicht einig, welcher gilt", name)
		}
		r, err := f.Open()
		if err != nil {
			return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
		}
		defer r.Close()
		b, err := io.ReadAll(io.LimitReader(r, w.left+1))
		switch {
		case err != nil:
			return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
		case int64(len(b)) > w.left:
			return nil, refused("the workbook is larger than %d bytes when it is unpacked", "die Arbeitsmappe ist entpackt größer als %d Bytes", 4*MaxBytes)
		}
		w.left -= int64(len(b))
		return b, nil
	}
	return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, errMissing)
}

func (w *workbook) decode(name string, into any) error {
	b, err := w.part(name)
	if err != nil {
		return err
	}
	if err := xml.Unmarshal(b, into); err != nil {
		return refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
	}
	return nil
}

// sheetRef is a sheet of a workbook, and the part that it is in.
type sheetRef struct {
	Name  string     `xml:"name,attr"`
	State string     `xml:"state,attr"`
	Attrs []xml.Attr `xml:",any,attr"`
	part  string
}

// onlySheet returns the part of the workbook's first sheet. Whoever looks at a workbook sees one
// sheet at a time, so further ones with something in them are refused, and so is a hidden first.
func (w *workbook) onlySheet() (string, error) {
	sheets, err := w.sheets()
	switch {
	case err != nil:
		return "", err
	case len(sheets) == 0:
		return "", refused("the workbook has no sheet", "die Arbeitsmappe hat kein Blatt")
	case sheets[0].State != "" && sheets[0].State != "visible":
		return "", refused("the workbook's first sheet %q is hidden", "das erste Blatt der Arbeitsmappe, %q, ist ausgeblendet", sheets[0].Name)
	case sheets[0].part == "":
		return "", refused("the workbook doesn't say where its first sheet is", "die Arbeitsmappe sagt nicht, wo ihr erstes Blatt ist")
	}
	for _, further := range sheets[1:] {
		filled, err := w.filled(further.part)
		if err != nil {
			return "", err
		}
		if filled {
			return "", refused("the workbook has something on a further sheet, %q: save the list as a workbook of its own", "auf einem weiteren Blatt, %q, steht etwas: bitte die Liste als eigene Arbeitsmappe speichern", further.Name)
		}
	}
	return sheets[0].part, nil
}

func (w *workbook) sheets() ([]sheetRef, error) {
	var book struct {
		Sheets []sheetRef `xml:"sheets>sheet"`
	}
	if err := w.decode("xl/workbook.xml", &book); err != nil {
		return nil, err
	}
	var rels struct {
		Relationships []struct {
			ID     string `xml:"Id,attr"`
			Target string `xml:"Target,attr"`
		} `xml:"Relationship"`
	}
	if err := w.decode("xl/_rels/workbook.xml.rels", &rels); err != nil {
		return nil, err
	}
	for i := range book.Sheets {
		id := ""
		for _, a := range book.Sheets[i].Attrs {
			if a.Name.Local == "id" {
				id = a.Value
			}
		}
		for _, r := range rels.Relationships {
			switch {
			case r.ID != id:
			case strings.HasPrefix(r.Target, "/"):
				book.Sheets[i].part = path.Clean(r.Target)[1:]
			default:
				book.Sheets[i].part = path.Join("xl", r.Target)
			}
		}
	}
	return book.Sheets, nil
}

// filled reports whether a sheet has a cell with something in it. A chart or a macro has none,
// and may not be a part that can be found.
func (w *workbook) filled(name string) (bool, error) {
	b, err := w.part(name)
	if errors.Is(err, errMissing) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	d := xml.NewDecoder(bytes.NewReader(b))
	for inCell := false; ; {
		token, err := d.Token()
		if err == io.EOF {
			return false, nil
		}
		if err != nil {
			return false, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if e.Name.Local == "c" {
				inCell = true
			} else if inCell {
				return true, nil // a value, a text or a formula
			}
		case xml.EndElement:
			if e.Name.Local == "c" {
				inCell = false
			}
		}
	}
}

// richText is a string with or without formatted runs.
type richText struct {
	Text string `xml:"t"`
	Runs []struct {
		Text string `xml:"t"`
	} `xml:"r"`
}

func (t *richText) String() string {
	if len(t.Runs) == 0 {
		return t.Text
	}
	var b strings.Builder
	for _, r := range t.Runs {
		b.WriteString(r.Text)
	}
	return b.String()
}

func (w *workbook) readStrings() error {
	var table struct {
		Items []richText `xml:"si"`
	}
	err := w.decode("xl/sharedStrings.xml", &table)
	if errors.Is(err, errMissing) {
		return nil // all texts stand in the cells
	}
	if err != nil {
		return err
	}
	for i := range table.Items {
		w.strings = append(w.strings, table.Items[i].String())
	}
	return nil
}

// xlsxRow is a row of a sheet.
type xlsxRow struct {
	Number int      `xml:"r,attr"`
	Hidden bool     `xml:"hidden,attr"`
	Height *float64 `xml:"ht,attr"`
	Cells  []struct {
		Place   string    `xml:"r,attr"`
		Type    string    `xml:"t,attr"`
		Value   string    `xml:"v"`
		Formula *struct{} `xml:"f"`
		Inline  richText  `xml:"is"`
	} `xml:"c"`
}

func (w *workbook) readSheet(name string) (*sheet, error) {
	b, err := w.part(name)
	if err != nil {
		return nil, err
	}
	s := new(sheet)
	w.hidden = nil
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		token, err := d.Token()
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
		}
		start, ok := token.(xml.StartElement)
		if ok && start.Name.Local == "col" {
			var c xlsxColumns
			if err := d.DecodeElement(&c, &start); err != nil {
				return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
			}
			if c.Hidden || c.Width != nil && *c.Width == 0 {
				w.hidden = append(w.hidden, c)
			}
			continue
		}
		if ok && start.Name.Local == "sheetFormatPr" {
			var usual struct {
				Hidden bool     `xml:"zeroHeight,attr"`
				Height *float64 `xml:"defaultRowHeight,attr"`
				Width  *float64 `xml:"defaultColWidth,attr"`
			}
			if err := d.DecodeElement(&usual, &start); err != nil {
				return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
			}
			if usual.Hidden || usual.Height != nil && *usual.Height == 0 || usual.Width != nil && *usual.Width == 0 {
				return nil, refused("the sheet hides rows or columns unless they say otherwise: show all of them, and save again", "das Blatt blendet Zeilen oder Spalten von vornherein aus: bitte alle einblenden und neu speichern")
			}
			continue
		}
		if !ok || start.Name.Local != "row" {
			continue
		}
		var x xlsxRow
		if err := d.DecodeElement(&x, &start); err != nil {
			return nil, refused("workbook's %s: %v", "der Teil %s der Arbeitsmappe ist nicht lesbar: %v", name, err)
		}
		if len(s.rows) > MaxRows {
			return nil, refused("more than %d rows", "mehr als %d Zeilen", MaxRows)
		}
		before := 0
		if n := len(s.rows); n > 0 {
			before = s.rows[n-1].line
		}
		row, err := w.row(&x, before)
		if err != nil {
			return nil, err
		}
		s.rows = append(s.rows, row)
	}
}

func (w *workbook) row(x *xlsxRow, before int) (sheetRow, error) {
	row := sheetRow{line: x.Number}
	if row.line == 0 {
		row.line = before + 1
	}
	if row.line <= before {
		return row, refused("row %d comes after row %d: the workbook is damaged", "Zeile %d steht nach Zeile %d: die Arbeitsmappe ist beschädigt", row.line, before)
	}
	if x.Hidden || x.Height != nil && *x.Height == 0 {
		// A filter hides rows; whoever looks at the list doesn't see them.
		return row, refused("row %d is hidden, by a filter perhaps: show all rows and save again", "Zeile %d ist ausgeblendet, vielleicht durch einen Filter: bitte alle Zeilen einblenden und neu speichern", row.line)
	}
	for i := range x.Cells {
		c := &x.Cells[i]
		at := len(row.cells)
		if c.Place != "" {
			at = columnOf(c.Place)
		}
		if at < len(row.cells) || at >= maxColumns {
			return row, refused("row %d: cell %q: want columns in order, %d at most", "Zeile %d: Zelle %q: die Spalten müssen der Reihe nach kommen, höchstens %d", row.line, c.Place, maxColumns)
		}
		for len(row.cells) < at {
			row.cells = append(row.cells, cell{})
		}
		one := cell{formula: c.Formula != nil}
		switch c.Type {
		case "s":
			n, err := strconv.Atoi(c.Value)
			if err != nil || n < 0 || n >= len(w.strings) {
				return row, refused("row %d: cell %q: text %q of %d", "Zeile %d: Zelle %q: Text %q von %d", row.line, c.Place, c.Value, len(w.strings))
			}
			one.text = w.strings[n]
		case "inlineStr":
			one.text = c.Inline.String()
		case "e":
			one.text, one.formula = c.Value, true // #REF! and the like come from formulas
		default:
			one.text = c.Value
		}
		one.text = strings.TrimSpace(one.text)
		if one.text != "" && slices.ContainsFunc(w.hidden, func(h xlsxColumns) bool { return h.First <= at+1 && at+1 <= h.Last }) {
			return row, refused("row %d: cell %s is in a hidden column: show all columns, and save again what you have looked at", "Zeile %d: Zelle %s steht in einer ausgeblendeten Spalte: bitte alle Spalten einblenden und neu speichern, was angesehen wurde", row.line, c.Place)
		}
		if t := newCell(one.text); t.formula {
			one.formula = true
		}
		row.cells = append(row.cells, one)
	}
	return row, nil
}

// columnOf returns the column of a cell's place, such as 1 of B7; -1 if it is none.
func columnOf(place string) int {
	n := 0
	for _, r := range place {
		if r < 'A' || r > 'Z' {
			break
		}
		n = 26*n + int(r-'A') + 1
		if n > maxColumns {
			return maxColumns
		}
	}
	return n - 1
}
