package admin

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestCheckJSON(t *testing.T) {
	for _, good := range []string{`{}`, `[]`, `"a"`, `1`, ` {"a":{"a":[{"a":1},{"a":2}]},"b":"a"} `, `{"a":"b","b":"a"}`, `null`} {
		if err := checkJSON([]byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		``: "not JSON", `{`: "not JSON", `{"a"}`: "not JSON", `{"a":1,}`: "not JSON", `tru`: "not JSON",
		`{"a":1,"a":1}`: `"a" stands twice`, `{"b":{"a":1,"\u0061":1}}`: `"a" stands twice`, `[{"a":1},{"a":1,"a":2}]`: "twice",
		`{"a":"x","b":"a","a":1}`: "twice",
		`{}{}`:                    "behind", `1 2`: "behind",
		"\"\xff\"": "UTF-8", strings.Repeat("[", 17): "deeper", strings.Repeat(`{"a":`, 17): "deeper",
	} {
		if err := checkJSON([]byte(bad)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", bad, err, want)
		}
	}
}

// What is let through, encoding/json reads.
func FuzzCheckJSON(f *testing.F) {
	f.Add([]byte(`{"a":[1,{"b":null}],"c":"d"}`))
	f.Add([]byte(`{"a":1,"a":2}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if checkJSON(body) == nil && !json.Valid(body) {
			t.Errorf("%q is let through", body)
		}
	})
}
