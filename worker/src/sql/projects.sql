-- $1 slugs
SELECT p.slug, p.name, p.url FROM klaxon.project AS p WHERE p.slug = ANY ($1)
