package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays may lie in a body; ours need three.
const maxDepth = 16

// checkJSON says what encoding/json would let pass: text that isn't UTF-8, keys that
// stand twice, needless depth, and something behind the value (RFC 8259, RFC 7493).
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return errors.New("body is not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	type level struct {
		keys  map[string]bool // nil in an array
		value bool            // a value comes next, not a key
	}
	var levels []level
	for started := false; !started || len(levels) > 0; started = true {
		t, err := d.Token()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("body is not JSON: %w", err)
		}
		top := len(levels) - 1
		if key, ok := t.(string); ok && top >= 0 && levels[top].keys != nil && !levels[top].value {
			if levels[top].keys[key] {
				return fmt.Errorf("key %.80q stands twice", key)
			}
			levels[top].keys[key] = true
			levels[top].value = true
			continue
		}
		if top >= 0 {
			levels[top].value = false
		}
		switch t {
		case json.Delim('{'):
			levels = append(levels, level{keys: make(map[string]bool)})
		case json.Delim('['):
			levels = append(levels, level{})
		case json.Delim('}'), json.Delim(']'):
			levels = levels[:top]
		}
		if len(levels) > maxDepth {
			return fmt.Errorf("body is nested deeper than %d", maxDepth)
		}
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("body has something behind its JSON value")
	}
	return nil
}
