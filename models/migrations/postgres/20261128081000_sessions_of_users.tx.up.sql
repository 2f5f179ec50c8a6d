-- Sessions and sign-in links belong to the user: an address can change hands, and they must not go with it.
DELETE FROM sessions s WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.email = s.email);
DELETE FROM sign_in_links l WHERE NOT EXISTS (SELECT 1 FROM users u WHERE u.email = l.email);
ALTER TABLE sessions ADD COLUMN user_id uuid;
ALTER TABLE sign_in_links ADD COLUMN user_id uuid;
UPDATE sessions s SET user_id = u.id FROM users u WHERE u.email = s.email;
UPDATE sign_in_links l SET user_id = u.id FROM users u WHERE u.email = l.email;
ALTER TABLE sessions ALTER COLUMN user_id SET NOT NULL, DROP COLUMN email,
    ADD CONSTRAINT sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
ALTER TABLE sign_in_links ALTER COLUMN user_id SET NOT NULL, DROP COLUMN email,
    ADD CONSTRAINT sign_in_links_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE;
CREATE INDEX sessions_user_id ON sessions (user_id);
