package schemetest

import "github.com/ocisync/ocisync/types/errs"

var pingCases = []testCase{
	{
		name: "before",
		rule: "Ping of a place that can be used succeeds before anything is there, and makes nothing",
		run: func(e *env) {
			_, err := e.api.Ping(e.ctx, e.r)
			e.must("Ping", err)
			_, err = e.api.TagList(e.ctx, e.r)
			e.refused("TagList after Ping", err, errs.ErrNotFound)
		},
	}, {
		name: "after",
		rule: "Ping reports a place that has something as existing, and as writable where it was written to",
		run: func(e *env) {
			e.push(e.r.WithTag("v1"), Image("pinged"))
			res, err := e.api.Ping(e.ctx, e.r)
			e.must("Ping", err)
			e.same("Exists", res.Exists, true)
			e.same("Writable", res.Writable, true)
			e.tags(e.r, "v1")
		},
	},
}
