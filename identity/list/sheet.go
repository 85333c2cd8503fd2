package list

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"
)

// MaxBytes is the largest file that is read.
const MaxBytes = 32 << 20

// MaxRows is how many rows a file may have: an agency's, with room.
const MaxRows = 100_000

// sheet is a file as a grid of cells.
type sheet struct{ rows []sheetRow }

type sheetRow struct {
	line  int // from 1
	cells []cell
}

// cell is the text of a cell. What a spreadsheet would compute is not a text.
type cell struct {
	text    string
	formula bool
}

// ErrFile is wrapped by errors about a file that can't be read as a table at all.
var ErrFile = errors.New("not a list")

// readSheet reads CSV or XLSX, whatever text begins with.
func readSheet(text []byte) (*sheet, error) {
	switch {
	case len(text) > MaxBytes:
		return nil, refused("%d bytes, want %d at most", "%d Bytes, höchstens %d sind erlaubt", len(text), MaxBytes)
	case bytes.HasPrefix(text, []byte("PK\x03\x04")):
		return readXLSX(text)
	case bytes.HasPrefix(text, []byte{0xd0, 0xcf, 0x11, 0xe0}):
		return nil, refused("an old Excel file (.xls): save it as .xlsx or CSV", "eine alte Excel-Datei (.xls): bitte als .xlsx oder CSV speichern")
	}
	decoded, err := decode(text)
	if err != nil {
		return nil, err
	}
	return readCSV(decoded)
}

// decode returns the text as UTF-8. Spreadsheets write CSV in UTF-8 with and without a
// byte order mark, as "Unicode text" in UTF-16, and else in the system's code page,
// which is Windows-1252 where German is spoken.
func decode(text []byte) (string, error) {
	var err error
	switch {
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		text = text[3:]
	case bytes.HasPrefix(text, []byte("\xff\xfe")), bytes.HasPrefix(text, []byte("\xfe\xff")):
		text, err = unicode.UTF16(unicode.LittleEndian, unicode.ExpectBOM).NewDecoder().Bytes(text)
	case !utf8.Valid(text):
		text, err = charmap.Windows1252.NewDecoder().Bytes(text)
	}
	switch {
	case err != nil:
		return "", refused("%v", "sie ist nicht lesbar: %v", err)
	case !utf8.Valid(text):
		return "", refused("not UTF-8, UTF-16 or Windows-1252", "weder UTF-8 noch UTF-16 noch Windows-1252")
	case bytes.IndexByte(text, 0) >= 0:
		return "", refused("it has NUL characters: save it as CSV or .xlsx", "sie enthält NUL-Zeichen: bitte als CSV oder .xlsx speichern")
	}
	return string(text), nil
}

// readCSV reads a table with a comma, a semicolon or a tab between its cells (RFC 4180),
// whichever its first line has.
func readCSV(text string) (*sheet, error) {
	skipped := 0
	first, rest, _ := strings.Cut(text, "\n")
	comma := ','
	if hint, ok := strings.CutPrefix(strings.TrimRight(first, "\r"), "sep="); ok && len(hint) == 1 {
		comma, text, skipped = rune(hint[0]), rest, 1 // Excel's own way to say it
	} else if n := strings.Count(first, ";"); n > strings.Count(first, ",") {
		comma = ';'
	} else if strings.Count(first, "\t") > strings.Count(first, ",") {
		comma = '\t'
	}
	if comma != ',' && comma != ';' && comma != '\t' {
		return nil, refused("sep=%c: want a comma, a semicolon or a tab", "sep=%c: erlaubt sind Komma, Semikolon und Tabulator", comma)
	}
	r := csv.NewReader(strings.NewReader(text))
	r.Comma, r.FieldsPerRecord, r.ReuseRecord = comma, -1, true
	s := new(sheet)
	for {
		record, err := r.Read()
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			var parse *csv.ParseError
			if errors.As(err, &parse) {
				return nil, refused("line %d: %v", "Zeile %d: %v", parse.StartLine+skipped, parse.Err)
			}
			return nil, refused("%v", "sie ist nicht lesbar: %v", err)
		}
		if len(s.rows) > MaxRows {
			return nil, refused("more than %d rows", "mehr als %d Zeilen", MaxRows)
		}
		line, _ := r.FieldPos(0)
		row := sheetRow{line: line + skipped, cells: make([]cell, len(record))}
		for i, text := range record {
			row.cells[i] = newCell(text)
		}
		s.rows = append(s.rows, row)
	}
}

// newCell returns the cell of a text in CSV, where a formula is known by how it begins.
// White space around it, and line breaks at its ends, are what people leave behind.
func newCell(text string) cell {
	text = strings.TrimSpace(text)
	return cell{text: text, formula: text != "" && strings.ContainsRune("=+-@", rune(text[0]))}
}

// empty reports whether nothing is in a row.
func (r *sheetRow) empty() bool {
	for _, c := range r.cells {
		if c.text != "" || c.formula {
			return false
		}
	}
	return true
}
