package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// approval checks who must agree.
func (c *checker) approval(cfg *Config) {
	if cfg.Approval == ApprovalNone && !cfg.Lab {
		c.add(Problem{Key: "approval", Value: show("none"), Want: "required, or lab: true",
			Hint: "one person alone may switch agencies only where no real mail is at stake"}, "lab")
	}
	if cfg.Approvals < 1 || cfg.Approvals > 9 {
		c.add(Problem{Key: "approvals", Value: strconv.Itoa(cfg.Approvals), Want: "1 to 9"})
	}
	if cfg.ApprovalLife <= 0 {
		c.add(Problem{Key: "approval_life", Value: shortDuration(cfg.ApprovalLife), Want: "more than 0"})
	}
}

// tokens checks who may use the API, and for what.
func (c *checker) tokens(cfg *Config) {
	tokens := cfg.Admin.Tokens
	ids := make([]string, len(tokens))
	for i := range tokens {
		ids[i] = tokens[i].Name
	}
	for i, t := range tokens {
		key := itemKey("admin.tokens", ids, i)
		c.id(key+".name", ids, i, "token")
		c.missing(key+".person", strings.TrimSpace(t.Person), "the name of who is behind it, as it is to stand in the log")
		if t.SHA256.IsZero() {
			c.missing(key+".sha256", "", "64 hexadecimal digits, the SHA-256 of the token")
		}
		for j := range tokens[:i] {
			if t.SHA256 == tokens[j].SHA256 && !t.SHA256.IsZero() {
				c.add(Problem{Key: key + ".sha256", Want: "a token of its own", Hint: itemKey("admin.tokens", ids, j) + " has the same, so nobody could tell who acted"})
			}
		}
		if len(t.Roles) == 0 && !cfg.Lab {
			c.add(Problem{Key: key + ".roles", Want: "one or more of " + oneOf(Role("").words()), Hint: "it is missing; only in a lab a token without roles may do everything"}, "lab")
		}
		for j, role := range t.Roles {
			if slices.Contains(t.Roles[:j], role) {
				c.add(Problem{Key: index(key+".roles", j), Value: show(string(role)), Want: "each role once"})
			}
		}
		for j, agency := range t.Agencies {
			if slices.Contains(t.Agencies[:j], agency) {
				c.add(Problem{Key: index(key+".agencies", j), Value: show(string(agency)), Want: "each agency once"})
			}
		}
	}
	if len(tokens)+len(cfg.Admin.SignOn.People) == 0 {
		c.warn(Problem{Key: "admin.tokens", Want: "a token for each person", Hint: "without one no command but version and config reaches this node"})
		return
	}
	c.persons(cfg, grants(cfg, ids))
}

// grant is something by which a person has roles.
type grant struct {
	key, person string
	roles       []Role
}

// grants returns all of them: tokens, and what people sign in by.
func grants(cfg *Config, tokens []string) []grant {
	var all []grant
	for i, t := range cfg.Admin.Tokens {
		all = append(all, grant{itemKey("admin.tokens", tokens, i), t.Person, t.Roles})
	}
	people := cfg.Admin.SignOn.People
	names := make([]string, len(people))
	for i := range people {
		names[i] = people[i].Person
	}
	for i, p := range people {
		all = append(all, grant{itemKey(peopleKey, names, i), p.Person, p.Roles})
	}
	return all
}

// persons checks what concerns people with several tokens.
func (c *checker) persons(cfg *Config, all []grant) {
	approvers, proposers := map[string]bool{}, map[string]string{} // by person; the person as written
	has := map[string]map[Role]string{}                            // by person, of each role, the key of what has it
	for _, g := range all {
		person := foldPerson(g.person)
		if has[person] == nil {
			has[person] = map[Role]string{}
		}
		for _, role := range g.roles {
			has[person][role] = g.key
			approvers[person] = approvers[person] || role == RoleApprover
			if role == RoleOperator || role == RoleAdmin {
				proposers[person] = g.person
			}
		}
		if admin, approver := has[person][RoleAdmin], has[person][RoleApprover]; admin != "" && approver != "" && !cfg.Lab {
			c.add(Problem{Key: g.key + ".roles", Want: "admin or approver, not both for one person",
				Hint: fmt.Sprintf("%s is admin by %s and approver by %s; who hands out tokens never approves", g.person, admin, approver)}, "lab")
		}
	}
	if cfg.Approval != ApprovalRequired {
		return
	}
	for _, person := range slices.Sorted(maps.Keys(proposers)) {
		n := 0
		for other, yes := range approvers {
			if yes && other != person {
				n++
			}
		}
		if n < cfg.Approvals {
			c.warn(Problem{Key: "admin.tokens", Want: fmt.Sprintf("%d other persons with the role approver", cfg.Approvals),
				Hint: fmt.Sprintf("there are %d, so nothing that %s proposes can be approved", n, proposers[person])}, "approvals")
			return
		}
	}
}

// foldPerson returns a name in the form in which two names are compared, as
// approval.Person has it.
func foldPerson(name string) string { return strings.ToLower(strings.Join(strings.Fields(name), " ")) }
