package page

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"mailcutover/admin"
)

// What the page couldn't learn it says: an empty place would look like good news.
func TestWhatIsNotKnownIsSaid(t *testing.T) {
	answers := map[string]any{
		"/v1/agencies/health":    admin.Agency{ID: "health", Open: true},
		"/v1/lists":              admin.BatchLists{Lists: []admin.BatchList{{Number: 1, Standing: "active"}}, Unreadable: []string{"list health-2 is damaged"}},
		"/v1/sessions":           admin.Sessions{Total: 2, Missing: []admin.Missing{{Node: "mx2", Error: "timeout"}}},
		"/v1/route/login/a.berg": admin.LoginRoute{Open: true},
	}
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.URL.Path]
		switch {
		case r.URL.Path == "/v1/directory/drift":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			answer = admin.Problem{Status: http.StatusConflict, Detail: "the reading of ad is two days old"}
		case !ok:
			answer = struct{}{}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	defer api.Close()
	client, err := admin.NewClient(api.URL, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	views, err := newViews()
	if err != nil {
		t.Fatal(err)
	}
	p := &Page{views: views}
	p.ProgressKey = func() string { return "" }
	look := func(v view, path, id string, parts ...string) string {
		t.Helper()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.SetPathValue("id", id)
		s, err := p.look(&visit{page: p, api: client, lang: English, r: r, v: v})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, one := range parts {
			html, err := s.Part(one)
			if err != nil {
				t.Fatal(err)
			}
			text.WriteString(string(html))
		}
		return text.String()
	}
	text := look(agency, "/agencies/health", "health", "", "lists")
	for _, want := range []string{"t known whether the directory has changed", "the reading of ad is two days old", "list health-2 is damaged", "sessions of node mx2 are not counted: timeout"} {
		if !strings.Contains(text, want) {
			t.Errorf("the agency's page doesn't say %q:\n%s", want, text)
		}
	}
	if text := look(trace, "/trace?by=login&what=a.berg", "", ""); !strings.Contains(text, "Node mx2 did not answer.") || strings.Contains(text, "There are none.") {
		t.Errorf("the trace of a login:\n%s", text)
	}
}
