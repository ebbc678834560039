// Files of node: written, read, streamed, copied, renamed, listed, by every way that fs has.
const fs=require('fs'),path=require('path'),N=process.env.N,fp=fs.promises;
(async()=>{
 const f=path.join(N,'n.txt'); const big=Buffer.alloc(3000000,'abcdefghij');
 fs.writeFileSync(f,'hello\n'); fs.appendFileSync(f,'more\n'); console.log(fs.readFileSync(f,'utf8'));
 await fp.writeFile(path.join(N,'big'),big); console.log((await fp.readFile(path.join(N,'big'))).equals(big));
 await fp.copyFile(path.join(N,'big'),path.join(N,'copy')); console.log((await fp.stat(path.join(N,'copy'))).size);
 fs.copyFileSync(path.join(N,'big'),'local'); fs.copyFileSync('local',path.join(N,'back')); console.log(fs.readFileSync(path.join(N,'back')).equals(big));
 await new Promise((ok,no)=>fs.createReadStream(path.join(N,'big')).pipe(fs.createWriteStream(path.join(N,'streamed'))).on('finish',ok).on('error',no));
 console.log(fs.readFileSync(path.join(N,'streamed')).equals(big));
 const h=await fp.open(path.join(N,'rw'),'w+'); await h.write('0123456789',0); await h.write('XX',4); await h.truncate(8); console.log((await h.read(Buffer.alloc(20),0,20,0)).buffer.toString('latin1',0,8)); await h.sync(); await h.datasync(); await h.utimes(1,2); console.log((await h.stat()).mtimeMs); await h.chmod(0o640); console.log(((await h.stat()).mode&0o777).toString(8)); await h.close();
 fs.mkdirSync(path.join(N,'d/e/f'),{recursive:true}); fs.renameSync(f,path.join(N,'d/e/g')); console.log(fs.readdirSync(N).sort(), fs.readdirSync(path.join(N,'d'),{recursive:true}).sort());
 for await (const e of await fp.opendir(N)) if(e.isDirectory()) console.log('dir',e.name);
 console.log(fs.realpathSync(path.join(N,'d/../d')).replace(N,'N'), fs.realpathSync.native(path.join(N,'d')).replace(N,'N'));
 const t=fs.mkdtempSync(path.join(N,'tmp-')); console.log(t.length-N.length); fs.rmdirSync(t);
 fs.rmSync(path.join(N,'d'),{recursive:true}); console.log(fs.existsSync(path.join(N,'d')));
 fs.accessSync(path.join(N,'rw'),fs.constants.R_OK); fs.utimesSync(path.join(N,'rw'),10,20); console.log(fs.statSync(path.join(N,'rw')).mtimeMs, fs.lstatSync(path.join(N,'rw')).isFile());
 try{fs.readFileSync(path.join(N,'none'))}catch(e){console.log(e.code)}
 const w=fs.openSync(path.join(N,'v'),'w'); fs.writevSync(w,[Buffer.from('a'),Buffer.from('bc')]); fs.closeSync(w); console.log(fs.readFileSync(path.join(N,'v'),'latin1'));
 console.log(require('child_process').execSync('cat '+path.join(N,'v')).toString(), require('child_process').spawnSync('sh',['-c','echo x >> v; cat v'],{cwd:N}).stdout.toString());
 fs.unlinkSync(path.join(N,'v')); const st=fs.statfsSync(N); console.log(st.bsize);
})();
